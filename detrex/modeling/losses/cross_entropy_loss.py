"""Cross-entropy loss."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .utils import weight_reduce_loss


def cross_entropy(
    preds: Float[Tensor, "n c *m"],
    targets: Int[Tensor, " n *m"],
    weight: Float[Tensor, " n *m"] | None = None,
    class_weight: Float[Tensor, " c"] | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    ignore_index: int = -100,
    avg_non_ignore: bool = False,
) -> Float[Tensor, "..."]:
    """Softmax cross-entropy.

    Args:
        preds: (N, C, ...) logits.
        targets: (N, ...) int64 classes.
        weight: weights of the single losses, shaped like ``targets``.
        class_weight: (C,) weights of the classes.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: what a mean divides the sum by.
        ignore_index: class whose loss is 0.
        avg_non_ignore: whether a mean counts only what is not ignored.

    Returns:
        The reduced loss.
    """
    loss = F.cross_entropy(
        preds, targets, weight=class_weight, reduction="none", ignore_index=ignore_index
    )
    if avg_factor is None and avg_non_ignore and reduction == "mean":
        avg_factor = (targets != ignore_index).sum()
    weight = None if weight is None else weight.to(loss.dtype)
    return weight_reduce_loss(loss, weight, reduction, avg_factor)


class CrossEntropyLoss(nn.Module):
    """Softmax cross-entropy times a weight.

    Args:
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the loss.
        ignore_index: class whose loss is 0; -100 by default.
        avg_non_ignore: whether a mean counts only what is not ignored.
    """

    def __init__(
        self,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        ignore_index: int | None = None,
        avg_non_ignore: bool = False,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.ignore_index = -100 if ignore_index is None else ignore_index
        self.avg_non_ignore = avg_non_ignore

    def forward(
        self,
        preds: Float[Tensor, "n c *m"],
        targets: Int[Tensor, " n *m"],
        weight: Float[Tensor, " n *m"] | None = None,
        avg_factor: float | Tensor | None = None,
        class_weight: Float[Tensor, " c"] | None = None,
        ignore_index: int | None = None,
    ) -> Float[Tensor, "..."]:
        """Compute the loss; arguments as in `cross_entropy`."""
        return self.loss_weight * cross_entropy(
            preds,
            targets,
            weight,
            class_weight=class_weight,
            reduction=self.reduction,
            avg_factor=avg_factor,
            ignore_index=self.ignore_index if ignore_index is None else ignore_index,
            avg_non_ignore=self.avg_non_ignore,
        )
