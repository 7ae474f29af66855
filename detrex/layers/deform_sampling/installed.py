"""Compiled CUDA kernels that the environment may hold; each runs only when asked for by name.

They are built for float32 and float64: half precision is lifted to float32 for them.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from detrex.utils.misc import at_least_float32

from .grid_sample import Sizes
from .operators import make_operators

Passes = tuple[Callable[..., Tensor], Callable[..., Sequence[Tensor]]]
"""Forward and backward: values, sizes, starts, locations, weights, (gradient,) batch of a step."""


class InstalledKernel:
    """A kernel from another package.

    Args:
        package: what it is called in an operator's name.
        load: imports it and gives its two passes.
    """

    def __init__(self, package: str, load: Callable[[], Passes]) -> None:
        self._load = load
        name = f"deformable_attention_by_{package}"
        self._operator = make_operators(name, self._forward, self._backward)

    @cached_property
    def _passes(self) -> Passes:
        return self._load()

    def why_not(self, device: str, dtype: torch.dtype) -> str:
        """Tell why this kernel cannot run on such values.

        Args:
            device: type of the tensors' device.
            dtype: that of the values.

        Returns:
            A reason in a few words, empty where it can.
        """
        if device != "cuda":
            return "it needs a CUDA device"
        try:
            _ = self._passes
        except (ImportError, AttributeError, OSError, RuntimeError, ValueError) as error:
            return f"it cannot be loaded ({str(error).strip().splitlines()[0][:150]})"
        return ""

    def attend(
        self, value_NSHD: Tensor, locations_NQHLP2: Tensor, weights_NQHLP: Tensor, sizes: Sizes
    ) -> Tensor:
        """Sample each level at the given places and add the samples up by their weights.

        Args:
            value_NSHD: tokens of all levels, on a CUDA device.
            locations_NQHLP2: places (x, y) from 0 to 1 in each level, in float32, or float64 where
                the values are.
            weights_NQHLP: weights, of the locations' dtype.
            sizes: (height, width) of each level.

        Returns:
            (N, Q, H * D) sums, of the dtype of the values.
        """
        sides = [side for size in sizes for side in size]
        return self._operator(value_NSHD, locations_NQHLP2, weights_NQHLP, sides)

    def _forward(
        self, value: Tensor, locations: Tensor, weights: Tensor, sides: Sequence[int]
    ) -> Tensor:
        inputs = _arguments(value, locations, weights, sides)
        return self._passes[0](*inputs, len(value)).to(value.dtype)

    def _backward(
        self,
        grad: Tensor,
        value: Tensor,
        locations: Tensor,
        weights: Tensor,
        sides: Sequence[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = _arguments(value, locations, weights, sides)
        seed = grad.to(locations.dtype).contiguous()
        grad_value, *grads = self._passes[1](*inputs, seed, len(value))
        return grad_value.to(value.dtype), grads[0], grads[1]


def _arguments(
    value: Tensor, locations: Tensor, weights: Tensor, sides: Sequence[int]
) -> tuple[Tensor, ...]:
    sizes = torch.tensor(sides, dtype=torch.int64).view(-1, 2)
    tokens = sizes.prod(1)
    starts = tokens.cumsum(0) - tokens
    on_device = (numbers.to(value.device, non_blocking=True) for numbers in (sizes, starts))
    value = at_least_float32(value).contiguous()
    return value, *on_device, locations.contiguous(), weights.contiguous()


def _passes_of(extension: Any) -> Passes:
    return extension.ms_deform_attn_forward, extension.ms_deform_attn_backward


def _load_detrex() -> Passes:
    """Load the extension that users of the original have built."""
    return _passes_of(importlib.import_module("detrex._C"))


def _load_mmcv() -> Passes:
    forward, fill = _passes_of(importlib.import_module("mmcv._ext"))

    def backward(*arguments: Any) -> list[Tensor]:
        value, _, _, locations, weights, _, step = arguments
        grads = [torch.zeros_like(tensor) for tensor in (value, locations, weights)]
        fill(*arguments[:-1], *grads, step)
        return grads

    return forward, backward


def _load_hub() -> Passes:
    get_kernel = importlib.import_module("kernels").get_kernel
    return _passes_of(get_kernel("kernels-community/deformable-detr"))


INSTALLED = {
    "detrex._C": InstalledKernel("detrex_extension", _load_detrex),
    "mmcv": InstalledKernel("mmcv", _load_mmcv),
    "kernels": InstalledKernel("hub", _load_hub),
}
"""By the name to ask for each: the original's extension, mmcv, and the package `kernels`."""
