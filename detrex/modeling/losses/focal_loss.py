"""Focal loss (arXiv:1708.02002), of logits and of probabilities."""

import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .utils import weight_reduce_loss


def binary_focal_loss(
    losses: Tensor, prob: Tensor, targets: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Weigh binary cross-entropies by how wrong they are.

    Args:
        losses: binary cross-entropies of any shape.
        prob: probabilities that they were computed from.
        targets: 0 or 1, or soft labels between.
        alpha: weight of the positives; below 0 for no weighting.
        gamma: exponent that weighs down easy cases.

    Returns:
        Losses of the same shape.
    """
    prob_of_truth = prob * targets + (1 - prob) * (1 - targets)
    losses = losses * (1 - prob_of_truth) ** gamma
    if alpha >= 0:
        losses = losses * (alpha * targets + (1 - alpha) * (1 - targets))
    return losses


def _one_hot(targets: Tensor, preds: Tensor) -> Tensor:
    """Turn (N,) classes into (N, C) rows of 0 and 1; the class C (background) gives a row of 0."""
    if targets.dim() == preds.dim() - 1:
        num_classes = preds.shape[-1]
        targets = F.one_hot(targets, num_classes + 1)[..., :num_classes]
    return targets.to(preds.dtype)


def _per_row(weight: Tensor | None, loss: Tensor) -> Tensor | None:
    if weight is not None and weight.dim() == loss.dim() - 1:
        return weight.unsqueeze(-1)
    return weight


def sigmoid_focal_loss(
    preds: Float[Tensor, "n c"],
    targets: Shaped[Tensor, "n c"] | Int[Tensor, " n"],
    weight: Float[Tensor, " n"] | Float[Tensor, "n c"] | None = None,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """Focal loss of logits.

    Args:
        preds: (N, C) logits.
        targets: (N, C) of 0 and 1, or (N,) int64 classes, where C stands for background.
        weight: (N,) or (N, C) weights.
        alpha: weight of the positives; below 0 for no weighting.
        gamma: exponent that weighs down easy cases.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: what a mean divides the sum by.

    Returns:
        The reduced loss; (N, C) for ``none``.
    """
    targets = _one_hot(targets, preds)
    losses = F.binary_cross_entropy_with_logits(preds, targets, reduction="none")
    losses = binary_focal_loss(losses, preds.sigmoid(), targets, alpha, gamma)
    return weight_reduce_loss(losses, _per_row(weight, losses), reduction, avg_factor)


def focal_loss_with_prob(
    preds: Float[Tensor, "n c"],
    targets: Shaped[Tensor, "n c"] | Int[Tensor, " n"],
    weight: Float[Tensor, " n"] | Float[Tensor, "n c"] | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """Focal loss of probabilities in [0, 1]; otherwise as `sigmoid_focal_loss`."""
    targets = _one_hot(targets, preds)
    losses = F.binary_cross_entropy(preds, targets, reduction="none")
    losses = binary_focal_loss(losses, preds, targets, alpha, gamma)
    return weight_reduce_loss(losses, _per_row(weight, losses), reduction, avg_factor)


class FocalLoss(nn.Module):
    """Focal loss times a weight.

    Args:
        alpha: weight of the positives; below 0 for no weighting.
        gamma: exponent that weighs down easy cases.
        reduction: ``none``, ``mean`` or ``sum``.
        loss_weight: factor of the loss.
        activated: whether the inputs are probabilities rather than logits.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.activated = activated

    def forward(
        self,
        preds: Float[Tensor, "n c"],
        targets: Shaped[Tensor, "n c"] | Int[Tensor, " n"],
        weight: Float[Tensor, " n"] | Float[Tensor, "n c"] | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Float[Tensor, "..."]:
        """Compute the loss; arguments as in `sigmoid_focal_loss`."""
        loss = focal_loss_with_prob if self.activated else sigmoid_focal_loss
        return self.loss_weight * loss(
            preds, targets, weight, self.alpha, self.gamma, self.reduction, avg_factor
        )
