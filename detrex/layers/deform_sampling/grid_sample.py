"""Sampling by one `grid_sample` for each level: slow, plain, and possible everywhere.

Shape suffixes: N batch, S tokens of all levels, Q queries, H heads, D channels of a head,
L levels, P points per head and level. ``A`` stands for N * H, heads as part of the batch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from detrex.utils.misc import at_least_float32

Sizes = list[tuple[int, int]]


def why_not(device: str, dtype: torch.dtype) -> str:
    """Tell why this kernel cannot run: it always can.

    Args:
        device: type of the tensors' device.
        dtype: that of the values.

    Returns:
        An empty string.
    """
    return ""


def attend(
    value_NSHD: Tensor, locations_NQHLP2: Tensor, weights_NQHLP: Tensor, sizes: Sizes
) -> Tensor:
    """Sample each level at the given places and add the samples up by their weights.

    Args:
        value_NSHD: tokens of all levels.
        locations_NQHLP2: places (x, y) from 0 to 1 in each level, in float32, or float64 where the
            values are.
        weights_NQHLP: weights, of the locations' dtype.
        sizes: (height, width) of each level.

    Returns:
        (N, Q, H * D) sums, of the dtype of the values.
    """
    inputs = (at_least_float32(value_NSHD), locations_NQHLP2, weights_NQHLP)
    # A traced graph (FLOP counts, ONNX) must show the operations, not one opaque function.
    differentiable = torch.is_grad_enabled() and not torch.jit.is_tracing()
    if differentiable and any(tensor.requires_grad for tensor in inputs):
        output: Tensor = _DeformableAttend.apply(*inputs, sizes)
    else:
        output = _attend(*inputs, sizes)
    return output.to(value_NSHD.dtype)


def _split_levels(
    value_NSHD: Tensor,
    locations_NQHLP2: Tensor,
    weights_NQHLP: Tensor,
    sizes: Sizes,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Lay the inputs out for one `grid_sample` per level.

    Queries come last: sums over points and products with weights then run over long contiguous
    rows, which is what makes this the fastest layout on a CPU.
    """
    N, S, H, D = value_NSHD.shape
    _, Q, _, L, P, _ = locations_NQHLP2.shape
    value_ADS = value_NSHD.permute(0, 2, 3, 1).reshape(N * H, D, S)
    levels = value_ADS.split([height * width for height, width in sizes], dim=2)
    maps_ADhw = [level.unflatten(2, size) for level, size in zip(levels, sizes, strict=True)]
    grid_LAPQ2 = 2 * locations_NQHLP2.permute(3, 0, 2, 4, 1, 5).reshape(L, N * H, P, Q, 2) - 1
    weights_LAPQ = weights_NQHLP.permute(3, 0, 2, 4, 1).reshape(L, N * H, P, Q)
    return maps_ADhw, grid_LAPQ2, weights_LAPQ


def _sample(map_ADhw: Tensor, grid_APQ2: Tensor) -> Tensor:
    return F.grid_sample(
        map_ADhw, grid_APQ2, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _attend(
    value_NSHD: Tensor,
    locations_NQHLP2: Tensor,
    weights_NQHLP: Tensor,
    sizes: Sizes,
) -> Tensor:
    N, _, H, D = value_NSHD.shape
    Q = locations_NQHLP2.shape[1]
    maps, grids, weights = _split_levels(value_NSHD, locations_NQHLP2, weights_NQHLP, sizes)
    out_ADQ = value_NSHD.new_zeros(N * H, D, Q)
    for map_ADhw, grid_APQ2, weight_APQ in zip(maps, grids, weights, strict=True):
        sampled_ADPQ = _sample(map_ADhw, grid_APQ2)
        for point in range(weight_APQ.shape[1]):
            out_ADQ.addcmul_(sampled_ADPQ[:, :, point], weight_APQ[:, None, point])
    return out_ADQ.view(N, H * D, Q).transpose(1, 2)


class _DeformableAttend(torch.autograd.Function):
    """`_attend` that samples again in the backward pass.

    The samples are P * L times as large as the output; keeping them is what makes plain autograd
    costly in memory, and on a CPU in time.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, locations: Tensor, weights: Tensor, sizes: Sizes
    ) -> Tensor:
        ctx.save_for_backward(value, locations, weights)
        ctx.sizes = sizes
        return _attend(value, locations, weights, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NQC: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        value_NSHD, locations_NQHLP2, weights_NQHLP = ctx.saved_tensors
        N, S, H, D = value_NSHD.shape
        _, Q, _, L, P, _ = locations_NQHLP2.shape
        maps, grids, weights = _split_levels(value_NSHD, locations_NQHLP2, weights_NQHLP, ctx.sizes)
        grad_AD1Q = grad_NQC.transpose(1, 2).reshape(N * H, D, 1, Q)
        grad_maps, grad_grids, grad_weights = [], [], []
        for map_ADhw, grid_APQ2, weight_APQ in zip(maps, grids, weights, strict=True):
            sampled_ADPQ = _sample(map_ADhw, grid_APQ2)
            grad_weights.append((sampled_ADPQ * grad_AD1Q).sum(dim=1))
            grad_map, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
                grad_AD1Q * weight_APQ[:, None], map_ADhw, grid_APQ2, 0, 0, False, [True, True]
            )
            grad_maps.append(grad_map.flatten(2))
            grad_grids.append(grad_grid)
        grad_value = torch.cat(grad_maps, dim=2).view(N, H, D, S).permute(0, 3, 1, 2)
        grad_locations = 2 * torch.stack(grad_grids).view(L, N, H, P, Q, 2)
        grad_weight = torch.stack(grad_weights).view(L, N, H, P, Q)
        return (
            grad_value,
            grad_locations.permute(1, 4, 2, 0, 3, 5),
            grad_weight.permute(1, 4, 2, 0, 3),
            None,
        )
