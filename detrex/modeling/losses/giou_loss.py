"""Generalized IoU loss of boxes."""

from jaxtyping import Float
from torch import Tensor, nn

from detrex.layers.box_ops import paired_generalized_box_iou

from .utils import weight_reduce_loss


def giou_loss(
    preds: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    weight: Float[Tensor, " n"] | Float[Tensor, "n 4"] | None = None,
    eps: float = 1e-6,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """One less the generalized IoU (arXiv:1902.09630) of each prediction with its target.

    Args:
        preds: (N, 4) boxes, ``xyxy``.
        targets: (N, 4) boxes, ``xyxy``.
        weight: (N,) weights, or (N, 4) ones that are averaged.
        eps: added to the areas that are divided by.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: what a mean divides the sum by.

    Returns:
        The reduced loss; (N,) for ``none``.
    """
    losses = 1 - paired_generalized_box_iou(preds, targets, eps)
    if weight is not None and weight.dim() > 1:
        weight = weight.mean(-1)
    return weight_reduce_loss(losses, weight, reduction, avg_factor)


class GIoULoss(nn.Module):
    """Generalized IoU loss times a weight.

    Args:
        eps: added to the areas that are divided by.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the loss.
    """

    def __init__(
        self, eps: float = 1e-6, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.eps = eps
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        preds: Float[Tensor, "n 4"],
        targets: Float[Tensor, "n 4"],
        weight: Float[Tensor, " n"] | Float[Tensor, "n 4"] | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Float[Tensor, "..."]:
        """Compute the loss; arguments as in `giou_loss`."""
        return self.loss_weight * giou_loss(
            preds, targets, weight, self.eps, self.reduction, avg_factor
        )
