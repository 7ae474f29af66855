"""L1 loss, plain and rounded off near zero."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .utils import weight_reduce_loss


def smooth_l1_loss(
    preds: Float[Tensor, "*n"],
    targets: Float[Tensor, "*n"],
    weight: Float[Tensor, "..."] | None = None,
    beta: float = 1.0,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """L1 loss that is quadratic for differences below ``beta`` (Fast R-CNN, arXiv:1504.08083).

    Args:
        preds: predictions of any shape.
        targets: what they should be, of the same shape.
        weight: weights that broadcast to the losses.
        beta: where the loss turns linear, at least 0.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: what a mean divides the sum by.

    Returns:
        The reduced loss.
    """
    losses = F.smooth_l1_loss(preds, targets, reduction="none", beta=beta)
    return weight_reduce_loss(losses, weight, reduction, avg_factor)


def l1_loss(
    preds: Float[Tensor, "*n"],
    targets: Float[Tensor, "*n"],
    weight: Float[Tensor, "..."] | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """Absolute difference; arguments and result as in `smooth_l1_loss`."""
    losses = F.l1_loss(preds, targets, reduction="none")
    return weight_reduce_loss(losses, weight, reduction, avg_factor)


class L1Loss(nn.Module):
    """L1 loss times a weight.

    Args:
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the loss.
    """

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        preds: Float[Tensor, "*n"],
        targets: Float[Tensor, "*n"],
        weight: Float[Tensor, "..."] | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Float[Tensor, "..."]:
        """Compute the loss; arguments as in `l1_loss`."""
        return self.loss_weight * l1_loss(preds, targets, weight, self.reduction, avg_factor)
