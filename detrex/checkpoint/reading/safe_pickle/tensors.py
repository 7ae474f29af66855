"""What a pickle of torch's may name: functions that make dense tensors inside checked storages.

Each stands for one of torch's own, most of which trust what they are given. Tensors are plain, on
the CPU and without gradients, whatever they were when they were saved.
"""

import math
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from detrex.checkpoint.reading.safe_pickle import values
from detrex.checkpoint.reading.safe_pickle.plain_data import UnfitContentError, shorten
from detrex.checkpoint.reading.safe_pickle.unpickler import Pending
from detrex.checkpoint.reading.safe_pickle.values import check_shape

# An expanded tensor has more elements than its storage; a causal mask of 4096 fits.
_MAX_EXPANDED = 2**24
_NUMBERS = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("bfloat16", "float16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
# Some of them are younger than the oldest torch that is supported.
NUMBER_TYPES = [getattr(torch, name) for name in _NUMBERS if hasattr(torch, name)]
_QUANTIZED = ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")


@dataclass(frozen=True)
class Storage:
    """The elements that tensors of a file share, as a flat tensor."""

    values: Tensor


def strided(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """Make a tensor that lies inside its storage.

    Args:
        storage: a `Storage`, else it is an error; as the others it comes from a file.
        offset: the element of the storage that comes first.
        size: the tensor's shape.
        stride: elements of the storage from one to the next, along each axis.

    Returns:
        A tensor that shares the storage's memory.

    Raises:
        UnpicklingError: the tensor would reach beyond its storage.
    """
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise UnpicklingError("a tensor has no proper storage")
    flat = storage.values
    shape, steps = check_shape(size), check_shape(stride)
    if len(shape) != len(steps):
        raise UnpicklingError(f"a tensor has the shape {shorten(shape)}, steps {shorten(steps)}")
    elements = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if elements and last >= len(flat):
        raise UnpicklingError(
            f"a tensor of shape {shorten(shape)} reaches element {last} of a storage of {len(flat)}"
        )
    if elements > max(len(flat), _MAX_EXPANDED):
        raise UnpicklingError(f"a tensor of shape {shorten(shape)} repeats {len(flat)} elements")
    if not elements:
        return flat[:0].new_empty(shape)
    return flat.as_strided(shape, steps, flat.storage_offset() + offset)


def _typed(values: Tensor, dtype: Any) -> Tensor:
    if values.dtype != torch.uint8 or not isinstance(dtype, torch.dtype) or dtype is torch.bool:
        raise UnpicklingError("a storage of bytes has no proper number type")
    return values[: len(values) // dtype.itemsize * dtype.itemsize].view(dtype)


def _rebuild(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = 0, _hooks: Any = 0, *rest: Any
) -> Tensor:
    """Stand for ``_rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    return _with_signs(strided(storage, offset, size, stride), *rest)


def _rebuild_v3(storage: Any, *places: Any) -> Tensor:
    """Stand for ``_rebuild_tensor_v3``, whose storages are plain bytes."""
    offset, size, stride, _grad, _hooks, dtype, *rest = places
    if not isinstance(storage, Storage):
        raise UnpicklingError("a tensor has no proper storage")
    return _rebuild(Storage(_typed(storage.values, dtype)), offset, size, stride, 0, 0, *rest)


def _with_signs(tensor: Tensor, metadata: Any = None) -> Tensor:
    """Apply the conjugation and the negation that torch delays."""
    flags = metadata if isinstance(metadata, dict) else {}
    tensor = tensor.conj() if flags.get("conj") is True else tensor
    # Lazily, since five bytes of a pickle can ask for it again.
    return torch._neg_view(tensor) if flags.get("neg") is True else tensor


def _parameter(data: Any = None, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise UnpicklingError("a parameter is no tensor")
    return data


def _of_subclass(function: Any, _kind: Any, arguments: Any, _state: Any = None) -> Tensor:
    """Take the plain tensor of one that has attributes."""
    if function not in (_rebuild, _rebuild_v3, _parameter) or not isinstance(arguments, tuple):
        raise UnpicklingError("a tensor is made in an unknown way")
    return function(*arguments)


class _BlankTensor(Pending):
    """Stand for a tensor of torch 0.1, until its state is given."""

    def build(self, state: Any) -> Tensor:
        if not (isinstance(state, tuple) and len(state) == 4):
            raise UnpicklingError("a tensor has no proper state")
        return strided(*state)


def _size(values: Any = ()) -> torch.Size:
    return torch.Size(check_shape(values))


def _device(kind: Any, index: Any = None) -> torch.device:
    if not isinstance(kind, str) or not (index is None or type(index) is int):
        raise UnpicklingError("a device has no proper name")
    return torch.device(kind) if index is None else torch.device(kind, index)


def _layout(name: Any) -> torch.layout:
    if name != "torch.strided":
        raise UnfitContentError("a tensor that is not dense")
    return torch.strided


def _torch_names() -> dict[str, Any]:
    classes = {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }
    unfit = {
        "_rebuild_sparse_tensor": "a sparse tensor",
        "_rebuild_qtensor": "a quantized tensor",
        "_rebuild_meta_tensor_no_storage": "a tensor of the device meta, which has no values",
        "_rebuild_nested_tensor": "a nested tensor",
        "_rebuild_wrapper_subclass": "a tensor without storage",
        "_rebuild_device_tensor_from_numpy": "a tensor of a device of its own",
        "_rebuild_device_tensor_from_cpu_tensor": "a tensor of a device of its own",
    }
    kinds = [(prefix, name) for prefix in ("torch", "torch.cuda") for name in classes]
    return {
        **{str(dtype): dtype for dtype in NUMBER_TYPES},
        **{f"{prefix}.{name}Storage": classes[name] for prefix, name in kinds},
        **{f"{prefix}.{name}Tensor": _BlankTensor for prefix, name in kinds},
        **{f"torch.{name}Storage": UnfitContentError("quantized numbers") for name in _QUANTIZED},
        **{f"torch._utils.{name}": UnfitContentError(what) for name, what in unfit.items()},
        "torch.storage.UntypedStorage": torch.uint8,
        "torch._utils._rebuild_tensor": _rebuild,
        "torch._utils._rebuild_tensor_v2": _rebuild,
        "torch._utils._rebuild_tensor_v3": _rebuild_v3,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": _of_subclass,
        "torch.nn.parameter.Parameter": _parameter,
        "torch.Tensor": "the class torch.Tensor",
        "torch.Size": _size,
        "torch.device": _device,
        "torch.serialization._get_layout": _layout,
    }


NAMES = {**values.NAMES, **_torch_names()}
