"""What may be read from a stranger's file, and the bounds that it has to keep.

Parts of a pickle can stand in many places, and inside each other: a few bytes can so stand for a
tree without an end, or for one that no walk through it ever finishes. Whatever passes
`check_content` can be walked through, copied and written without such a surprise.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

_MAX_DEPTH = 100
_KEYS = (str, bytes, int, float, complex, type(None), torch.dtype, torch.device)
CONTAINERS = (dict, OrderedDict, Counter, list, tuple, torch.Size, set, frozenset)
_LEAVES = (*_KEYS, bytearray, np.ndarray, np.generic, torch.Tensor, torch.layout)


class ForbiddenNameError(UnpicklingError):
    """A pickle names a class or a function that is not needed for weights."""


class UnfitContentError(UnpicklingError):
    """A pickle holds values that are no plain numbers, such as objects or sparse tensors."""


def shorten(value: Any) -> str:
    """Show something of a file's in a message: on one line, at most 80 characters.

    Args:
        value: a text, an integer or a tuple of integers; of anything else the type is shown, since
            parts that are repeated inside each other could take for ever to write.
    """
    numbers = isinstance(value, tuple) and all(isinstance(n, int) for n in value[:100])
    if not isinstance(value, (str, int)) and not numbers:
        return f"a {type(value).__name__}"
    shown = repr(str(value[:100] if numbers else value)[:81])[1:-1]
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def check_key(key: Any, depth: int = 0) -> None:
    """Refuse a key whose hash could take long, or recurse without an end.

    Args:
        key: what is to be a key of a dictionary or a member of a set.
        depth: how many tuples it is inside.

    Raises:
        UnpicklingError: it is neither plain nor a small tuple of plain values.
    """
    if isinstance(key, tuple) and len(key) <= 16 and depth < 3:
        for part in key:
            check_key(part, depth + 1)
    elif not isinstance(key, (*_KEYS, np.generic)):
        raise UnpicklingError(f"a dictionary's key is a {type(key).__name__}")


def check_content(content: Any, size: int) -> None:
    """Refuse content that is larger or deeper than its file, once each reference is followed.

    Args:
        content: what was unpickled.
        size: bytes of the pickle.

    Raises:
        UnpicklingError: it contains itself, is nested more than 100 deep, has a part that is no
            plain data, or would take more than 10 times the file if its parts were copied.
    """
    measured: dict[int, tuple[int, int]] = {}
    opened: set[int] = set()
    stack = [content]
    while stack:
        node = stack[-1]
        if type(node) not in CONTAINERS or id(node) in measured:
            _measure_leaf(node)
            stack.pop()
        elif id(node) not in opened:
            opened.add(id(node))
            for child in _children(node):
                if id(child) in opened:
                    raise UnpicklingError("it contains itself")
                if type(child) in CONTAINERS and id(child) not in measured:
                    stack.append(child)
        else:
            parts = [measured.get(id(c)) or (0, _measure_leaf(c)) for c in _children(node)]
            depth = 1 + max((part[0] for part in parts), default=0)
            total = 1 + sum(part[1] for part in parts)
            if depth > _MAX_DEPTH:
                raise UnpicklingError(f"it is nested more than {_MAX_DEPTH} deep")
            if total > 10 * size + 100_000:
                raise UnpicklingError("the same parts are repeated to many times the file's size")
            measured[id(node)] = depth, total
            opened.remove(id(node))
            stack.pop()


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        yield from node.keys()
        yield from node.values()
    else:
        yield from node


def _measure_leaf(leaf: Any) -> int:
    if isinstance(leaf, np.ndarray):
        return 1 + leaf.nbytes
    if isinstance(leaf, (str, bytes, bytearray)):
        return 1 + len(leaf)
    if not isinstance(leaf, (*_LEAVES, *CONTAINERS)):
        raise UnpicklingError(f"it holds a bare or unfinished {type(leaf).__name__}")
    return 1
