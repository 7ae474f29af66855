"""Whether a network's maps are best kept channels-last, told by what it computes."""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Kernels of grouped convolutions, of several channels each, are slower channels-last; a network of
# linear layers only pays for the change to and fro.
_LEAST_DENSE = 0.5
_MOST_GROUPED = 0.25


class Arithmetic(TorchDispatchMode):
    """Counts the multiplications of a run by the kind of operation that does them.

    Attributes:
        counts: multiplications by ``"dense"``, ``"depthwise"`` and ``"grouped"`` convolutions and
            by ``"linear"`` layers and matrix products.
        allows_channels_last: False where the network is known to fail in that format, or unknown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.allows_channels_last = True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            weight, groups = args[1], args[8]
            kind = "dense" if groups == 1 else "grouped"
            kind = "depthwise" if groups == args[0].shape[1] else kind
            cells = args[0] if args[6] else result
            per_cell = weight.numel() // weight.shape[0]
            self.counts[kind] += cells.numel() * per_cell
        elif func in _PRODUCTS:
            first = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)][-2]
            self.counts["linear"] += math.prod(result.shape) * first.shape[-1]
        return result

    @property
    def prefers_channels_last(self) -> bool:
        """Whether at least half is dense or depthwise convolutions, and little is grouped ones."""
        total = sum(self.counts.values()) or 1
        convolutions = self.counts["dense"] + self.counts["depthwise"]
        return (
            convolutions >= _LEAST_DENSE * total and self.counts["grouped"] <= _MOST_GROUPED * total
        )


class ChannelsLast(TorchDispatchMode):
    """Gives convolutions' maps channels-last, which those on the meta device are not of themselves.

    A forward that takes a view of a map across its channels fails so.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and result.dim() == 4:
            return result.contiguous(memory_format=torch.channels_last)
        return result


_PRODUCTS = frozenset(
    {
        torch.ops.aten.mm.default,
        torch.ops.aten.addmm.default,
        torch.ops.aten.bmm.default,
        torch.ops.aten.baddbmm.default,
    }
)
