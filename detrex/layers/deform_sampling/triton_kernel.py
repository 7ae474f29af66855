"""Sampling on a CUDA device by Triton programs, one pass over memory each way.

The two passes are operators of their own (``torch.ops.detrex``), with shapes for fake tensors and
a formula for autograd, so that `torch.compile` and `torch.export` take them as they are. Triton is
imported when one first runs; it compiles its program then, for each dtype and number of heads,
channels, levels and points, and not for each picture size.

Shape suffixes: N batch, S tokens of all levels, Q queries, H heads, D channels of a head, L levels,
P points per head and level.
"""

import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from detrex.errors import DetrexWarning

from .grid_sample import Sizes
from .operators import make_operators

_MAX_LEVELS = 8
# Numbers of a block, queries times channels: with four warps each thread then has four of them, one
# load of 16 bytes in float32, and few enough registers for many blocks to wait for memory at once.
BLOCK = 512
WARPS = 4


def why_not(device: str, dtype: torch.dtype) -> str:
    """Tell why this kernel cannot run on such values.

    Args:
        device: type of the tensors' device.
        dtype: that of the values.

    Returns:
        A reason in a few words, empty where it can.
    """
    interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if device != "cuda" and not interpreted:
        return "it needs a CUDA device"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"it has no form for {dtype}"
    if (
        torch.cuda.is_available()
        and not interpreted
        and torch.cuda.get_device_capability() < (7, 0)
    ):
        return "Triton needs a card of compute capability 7.0"
    return ""


def attend(
    value_NSHD: Tensor, locations_NQHLP2: Tensor, weights_NQHLP: Tensor, sizes: Sizes
) -> Tensor:
    """Sample each level at the given places and add the samples up by their weights.

    Sums are taken in float32, in float64 where the values are. The gradient of the values is added
    up in no fixed order, so that it repeats to float rounding only.

    Args:
        value_NSHD: tokens of all levels, on a CUDA device.
        locations_NQHLP2: places (x, y) from 0 to 1 in each level, of any float dtype.
        weights_NQHLP: weights, of any float dtype.
        sizes: (height, width) of each level.

    Returns:
        (N, Q, H * D) sums, of the dtype of the values.
    """
    flat_sizes = [number for size in sizes for number in size]
    if len(sizes) <= _MAX_LEVELS:
        inputs = (value_NSHD, locations_NQHLP2, weights_NQHLP)
        output: Tensor = _OPERATOR(*inputs, flat_sizes)
        return output
    first = sum(height * width for height, width in sizes[:_MAX_LEVELS])
    parts = []
    for tokens, levels in (
        (slice(0, first), slice(0, _MAX_LEVELS)),
        (slice(first, None), slice(_MAX_LEVELS, None)),
    ):
        locations, weights = locations_NQHLP2[:, :, :, levels], weights_NQHLP[:, :, :, levels]
        parts.append(attend(value_NSHD[:, tokens], locations, weights, sizes[levels]))
    return parts[0] + parts[1]


def _forward(value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor:
    N, _, H, D = value.shape
    output = value.new_empty(N, locations.shape[1], H * D)
    _launch("forward_program", (value, locations, weights), (output,), sizes)
    return output


def _backward(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    _tell_of_order()
    dtype = torch.promote_types(value.dtype, torch.float32)
    grad_value = torch.zeros(value.shape, dtype=dtype, device=value.device)
    grad_locations = torch.empty(locations.shape, dtype=locations.dtype, device=value.device)
    grad_weights = torch.empty(weights.shape, dtype=weights.dtype, device=value.device)
    outputs = (grad_value, grad_locations, grad_weights)
    _launch("backward_program", (grad, value, locations, weights), outputs, sizes)
    return grad_value.to(value.dtype), grad_locations, grad_weights


def _tell_of_order() -> None:
    """Refuse or warn where the user has asked for sums in a fixed order, as torch's own do."""
    if torch.are_deterministic_algorithms_enabled():
        message = (
            "The kernel 'triton' of deformable attention adds the gradient of the values up in no "
            "fixed order, which torch.use_deterministic_algorithms forbids; warn_only=True allows "
            "it."
        )
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(message)
        warnings.warn(message, DetrexWarning, stacklevel=2)


def _launch(
    program: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], sizes: Sequence[int]
) -> None:
    """Run a program for each block of queries, each head and each picture.

    Numbers that change with the picture are plain arguments, so that nothing is compiled or copied
    to the device for a new size; a level's height and width travel in the halves of one.
    """
    *_, value, _, weights = inputs
    if not value.numel() or not weights.numel():
        for output in outputs:
            output.zero_()
        return
    import triton

    from . import triton_programs

    (_, S, H, D), (N, Q, _, L, P) = value.shape, weights.shape
    block_D = triton.next_power_of_2(D)
    block_Q = max(BLOCK // block_D, 1)
    packed = [height << 32 | width for height, width in zip(sizes[::2], sizes[1::2], strict=True)]
    packed += [0] * (_MAX_LEVELS - len(packed))
    dtype = triton.language.float64 if value.dtype is torch.float64 else triton.language.float32
    with torch.cuda.device_of(value):
        getattr(triton_programs, program)[(triton.cdiv(Q, block_Q), H, N)](
            *(tensor.contiguous() for tensor in inputs),
            *outputs,
            *(Q, S, *packed),
            *(H, D, L, P, block_Q, block_D, dtype),
            num_warps=WARPS,
        )


_OPERATOR = make_operators("deformable_attention", _forward, _backward)
