"""Tensors that follow from a few numbers, kept for the next call with the same numbers."""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


def remembered(count: int) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Let a function keep what it made for its last arguments.

    The function takes hashable values and the device last; nobody may change what it gives in
    place. It gets the keyword ``keep``, by default True; with False it is called anew. So it is,
    and nothing is kept, while a graph is traced, compiled or exported, and in a mode that gives
    other tensors than plain ones, such as ``FakeTensorMode``.

    Args:
        count: how many results are kept, of all callers together.

    Returns:
        A decorator.
    """

    def decorate(make: Callable[..., Made]) -> Callable[..., Made]:
        @lru_cache(count)
        def kept(dtype: torch.dtype, *values: Hashable) -> Made:
            # An inference tensor would be of no use to a later call that needs gradients.
            with torch.inference_mode(False), torch.no_grad():
                return make(*values)

        @wraps(make)
        def call(*values: Any, keep: bool = True) -> Made:
            traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
            if not keep or traced or type(torch.empty(0, device=values[-1])) is not Tensor:
                return make(*values)
            return kept(torch.get_default_dtype(), *values)

        return call

    return decorate
