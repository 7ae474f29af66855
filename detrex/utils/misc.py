"""Small functions on tensors that several modules share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def interpolate(
    input: Float[Tensor, "n c _ _"],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Float[Tensor, "n c _ _"]:
    """Resize maps, `torch.nn.functional.interpolate` under the original's name.

    Args:
        input: (N, C, H, W) maps; N and C may be 0.
        size: (height, width) to resize to.
        scale_factor: factor to resize by, instead of ``size``.
        mode: ``nearest``, ``bilinear``, ``bicubic`` or ``area``.
        align_corners: see `torch.nn.functional.interpolate`.

    Returns:
        (N, C, H', W') maps.
    """
    return F.interpolate(input, size, scale_factor, mode, align_corners)


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Undo the sigmoid.

    Args:
        x: numbers that are first clamped to [0, 1].
        eps: smallest value of ``x`` and of ``1 - x`` under the logarithm. The default is larger
            than the usual 1e-5; it decides the results for boxes near the image's border.

    Returns:
        ``log(x / (1 - x))``, finite everywhere, shaped like ``x``.
    """
    x = x.clamp(min=0, max=1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def at_least_float32(x: Tensor) -> Tensor:
    """Lift half precision to float32; float32 and float64 stay as they are."""
    return x if x.dtype == torch.float64 else x.float()
