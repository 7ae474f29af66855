"""From losses of single elements to one number."""

import torch
from torch import Tensor


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """Reduce a loss.

    Args:
        loss: losses of any shape.
        reduction: ``none``, ``mean`` or ``sum``.

    Returns:
        ``loss`` itself, its mean (0 for no elements) or its sum.

    Raises:
        ValueError: when the reduction is unknown.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if loss.numel() else loss.sum()
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}.")


def weight_reduce_loss(
    loss: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Weigh a loss element by element, then reduce it.

    Args:
        loss: losses of any shape.
        weight: weights that broadcast to ``loss``.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: what a mean divides the sum by, instead of the number of elements.

    Returns:
        The reduced loss.

    Raises:
        ValueError: when the reduction is unknown, or is ``sum`` with an ``avg_factor``.
    """
    if weight is not None:
        loss = loss * weight
    if avg_factor is None or reduction == "none":
        return reduce_loss(loss, reduction)
    if reduction != "mean":
        raise ValueError(f"avg_factor goes with reduction='mean', got reduction={reduction!r}.")
    return loss.sum() / (avg_factor + torch.finfo(torch.float32).eps)
