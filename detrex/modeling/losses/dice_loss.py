"""Dice loss of masks."""

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from .utils import weight_reduce_loss


def dice_loss(
    preds: Float[Tensor, " n *m"],
    targets: Shaped[Tensor, " n *m"],
    weight: Float[Tensor, " n"] | None = None,
    eps: float = 1e-4,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """One less the Dice coefficient, with squares in the denominator (V-Net, arXiv:1606.04797).

    Args:
        preds: (N, ...) probabilities in [0, 1].
        targets: (N, ...) masks, 0 or 1.
        weight: (N,) weights.
        eps: added to both squared sums.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: what a mean divides the sum by.

    Returns:
        The reduced loss; (N,) for ``none``.
    """
    preds = preds.flatten(1)
    targets = targets.flatten(1).to(preds.dtype)
    overlap = 2 * (preds * targets).sum(1)
    total = (preds.square().sum(1) + eps) + (targets.square().sum(1) + eps)
    return weight_reduce_loss(1 - overlap / total, weight, reduction, avg_factor)


class DiceLoss(nn.Module):
    """Dice loss times a weight.

    Args:
        use_sigmoid: whether the inputs are logits that a sigmoid turns into probabilities.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the loss.
        eps: added to both squared sums.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.use_sigmoid = use_sigmoid
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(
        self,
        preds: Float[Tensor, " n *m"],
        targets: Shaped[Tensor, " n *m"],
        weight: Float[Tensor, " n"] | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Float[Tensor, "..."]:
        """Compute the loss; arguments as in `dice_loss`."""
        preds = preds.sigmoid() if self.use_sigmoid else preds
        loss = dice_loss(preds, targets, weight, self.eps, self.reduction, avg_factor)
        return self.loss_weight * loss
