"""Sizes that stay symbols while a network is exported: what `torch.export` alone would fix.

Two things fix a size, or make it too hard to compute with. Zeros that fill a window of m pixels,
written as ``(m - H % m) % m``, leave a side that nobody can tell to be a multiple of m: each later
division into windows is then proven anew from nested remainders, which takes minutes. Here such a
side becomes ``(H + m - 1) // m * m``, the same number. And ``float(H)`` and ``int(H)`` give a
number, where `torch.sym_float` gives a symbol: rotary embeddings and resampled position tables
scale by sizes.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from detrex.modeling.backbone.features.coverage import round_up


@contextlib.contextmanager
def symbolic_sizes(module: nn.Module) -> Iterator[None]:
    """Keep the sizes of feature maps symbolic while a module is exported.

    Args:
        module: what is exported; ``float`` and ``int`` in the files of its layers' classes, and of
            the libraries' functions that compute positions, give symbols for symbols meanwhile.
    """
    names = {type(layer).__module__ for layer in module.modules()}
    libraries = tuple(sorted({name.partition(".")[0] for name in names} - {"torch"}))
    files = [
        file
        for name, file in list(sys.modules.items())
        if file is not None and name.partition(".")[0] in libraries
    ]
    with contextlib.ExitStack() as stack:
        for file in files:
            for name, kind in {"float": _Float, "int": _Int}.items():
                if not hasattr(file, name):
                    stack.enter_context(mock.patch.object(file, name, kind, create=True))
        stack.enter_context(_WholeWindows())
        yield


class _WholeWindows(TorchFunctionMode):
    """Say of zeros that fill a window how long the filled side is."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.pad and len(args) + len(kwargs) > 1:
            given = [*args, *(kwargs.pop(name) for name in ("input", "pad") if name in kwargs)]
            given[1] = _filled(given[0], list(given[1]))
            return func(*given, **kwargs)
        return func(*args, **kwargs)


def _filled(image: torch.Tensor, pad: list[Any]) -> list[Any]:
    """Write the zeros at the end of each side as the filled side less the side."""
    for place, amount in enumerate(pad):
        step = _window(amount) if place % 2 else 0
        if step and isinstance(pad[place - 1], int) and pad[place - 1] == 0:
            side = image.shape[-1 - place // 2]
            pad[place] = round_up(side, step) - side
    return pad


def _window(amount: Any) -> int:
    """Give m of an amount that is a remainder by m; 0 of any other."""
    from torch.utils._sympy.functions import Mod, PythonMod

    if not isinstance(amount, torch.SymInt):
        return 0
    expression = amount.node.expr
    if isinstance(expression, Mod | PythonMod) and expression.args[1].is_Integer:
        return int(expression.args[1])
    return 0


class _Symbols(type):
    """Stands for a type of numbers in ``isinstance`` too."""

    kind: type
    symbol: Any

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.kind)

    def __call__(cls, *values: Any) -> Any:
        symbolic = values and isinstance(values[0], torch.SymInt | torch.SymFloat | torch.SymBool)
        return cls.symbol(values[0]) if symbolic else cls.kind(*values)


class _Float(metaclass=_Symbols):
    kind, symbol = float, staticmethod(torch.sym_float)


class _Int(metaclass=_Symbols):
    kind, symbol = int, staticmethod(torch.sym_int)
