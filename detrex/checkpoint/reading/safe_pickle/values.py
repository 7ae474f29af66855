"""What a pickle of weights may name beside plain data, made from parts that are checked first.

Each function stands for one that Python's or numpy's pickles name. No number of the file becomes
an address, an offset or a step in memory: an array is a copy of bytes whose count must be right,
of one of the number types that a tensor can have.
"""

import math
from collections import Counter, OrderedDict
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np

from detrex.checkpoint.reading.safe_pickle.plain_data import UnfitContentError, check_key, shorten
from detrex.checkpoint.reading.safe_pickle.unpickler import Pending

_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
_MAX_DIMENSIONS = 32
# Products of sizes and steps below this fit the 64-bit integers of numpy and torch.
_MAX_ELEMENTS = 2**48
_NDARRAY = "the class numpy.ndarray"


def check_shape(shape: Any) -> tuple[int, ...]:
    """Take a shape out of a file.

    Args:
        shape: what the file gives, of any type.

    Returns:
        The same as a tuple of at most 32 non-negative integers.

    Raises:
        UnpicklingError: it is no shape, or one beyond any memory.
    """
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise UnpicklingError(f"{shorten(shape)} is no shape")
    if len(shape) > _MAX_DIMENSIONS or math.prod(max(n, 1) for n in shape) > _MAX_ELEMENTS:
        raise UnpicklingError(f"the shape {shorten(shape)} is beyond any memory")
    return tuple(shape)


class _NumberType(Pending):
    """Stand for a ``numpy.dtype``, of which the name and the byte order are taken."""

    def __init__(self, code: Any, *_: Any) -> None:
        super().__init__()
        self.code = code.decode("latin1") if isinstance(code, bytes) else code
        self.order = "="

    def build(self, state: Any) -> "_NumberType":
        if not (isinstance(state, tuple) and len(state) >= 5):
            raise UnpicklingError("a number type has no proper state")
        if any(part is not None for part in state[2:5]):
            raise UnfitContentError("an array of records")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if not (isinstance(order, str) and order in ("<", ">", "|", "=")):
            raise UnpicklingError(f"{shorten(order)} is no byte order")
        self.order = order
        return self

    def resolve(self) -> np.dtype:
        if not (isinstance(self.code, str) and self.code in _NUMBERS):
            what = "Python objects" if self.code == "O8" else f"the type '{shorten(self.code)}'"
            raise UnfitContentError(f"numpy values of {what}")
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


def _array(data: Any, number: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    """Make an array of its own memory, in this machine's byte order."""
    if not isinstance(number, _NumberType):
        raise UnpicklingError(f"an array's number type is a {type(number).__name__}")
    dtype = number.resolve()
    shape = check_shape(shape)
    # Python 2's bytes are read as texts of the same codes.
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, (bytes, bytearray)):
        raise UnpicklingError(f"an array's data are a {type(data).__name__}")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise UnpicklingError(
            f"an array of shape {shorten(shape)} and type {dtype} takes {expected} bytes, "
            f"and there are {len(data)}"
        )
    if not expected:
        return np.empty(shape, dtype.newbyteorder("="))
    if dtype.kind == "b":
        # Bytes other than 0 and 1 are no truth values.
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape, order=order)
    values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=True)
    return values.reshape(shape, order=order)


class _BlankArray(Pending):
    """Stand for an array of ``_reconstruct``, until its state is given."""

    def __init__(self, kind: Any, *_: Any) -> None:
        super().__init__()
        if kind is not _NDARRAY:
            raise UnpicklingError(f"an array is of the class {type(kind).__name__}")

    def build(self, state: Any) -> np.ndarray:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise UnpicklingError("an array has no proper state")
        _, shape, number, fortran, data = state
        return _array(data, number, shape, "F" if fortran else "C")


def _from_buffer(data: Any, number: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if not (isinstance(order, str) and order in ("C", "F", "K")):
        raise UnpicklingError(f"{shorten(order)} is no order of an array's elements")
    array = _array(data, number, shape, "F" if order == "F" else "C")
    if axes is None:
        return array
    if sorted(check_shape(axes)) != list(range(array.ndim)):
        raise UnpicklingError(f"{shorten(axes)} is no order of an array's axes")
    return array.transpose(axes)


def _scalar(number: Any, data: Any = b"") -> Any:
    return _array(data, number, (), "C")[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stand for ``codecs.encode``, by which Python 3 writes bytes into old pickles."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnpicklingError("bytes are written in an unknown way")
    return text.encode("latin1")


def _bytes(*parts: Any) -> bytes:
    """Stand for ``bytes``, by which Python 3 writes none at all into old pickles."""
    if parts:
        raise UnpicklingError("bytes are written in an unknown way")
    return b""


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(data if isinstance(data, bytes) else _encode(data, encoding))


def _members(items: Any) -> list[Any]:
    if not isinstance(items, (list, tuple)):
        raise UnpicklingError(f"a container is made from a {type(items).__name__}")
    return list(items)


def _set(items: Any = ()) -> set[Any]:
    members = _members(items)
    for member in members:
        check_key(member)
    return set(members)


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    made: OrderedDict[Any, Any] = OrderedDict()
    for pair in _members(pairs):
        if len(_members(pair)) != 2:
            raise UnpicklingError("a dictionary is made from something that is no pair")
        check_key(pair[0])
        made[pair[0]] = pair[1]
    return made


def _counter(counts: Any = None) -> Counter[Any]:
    if counts is not None and type(counts) is not dict:
        raise UnpicklingError(f"a counter is made from a {type(counts).__name__}")
    made: Counter[Any] = Counter()
    for key, count in (counts or {}).items():
        made[key] = count
    return made


def _complex(real: Any, imaginary: Any = 0.0) -> complex:
    if not all(isinstance(part, (int, float)) for part in (real, imaginary)):
        raise UnpicklingError("a complex number is made from something that is no number")
    return complex(real, imaginary)


def _numpy_names() -> dict[str, Any]:
    names = {"numpy.ndarray": _NDARRAY, "numpy.dtype": _NumberType}
    # numpy 2 moved these functions.
    for package in ("numpy.core", "numpy._core"):
        names[f"{package}.multiarray._reconstruct"] = _BlankArray
        names[f"{package}.multiarray.scalar"] = _scalar
        names[f"{package}.numeric._frombuffer"] = _from_buffer
    return names


NAMES: dict[str, Any] = {
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.frozenset": _frozenset,
    "builtins.set": _set,
    "collections.Counter": _counter,
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    **_numpy_names(),
}
