"""The kinds of weights files, told by the first bytes and not by the name, and how each is read.

torch's zip archives and its older pickles, safetensors, pickles of numpy arrays as detectron2's
model zoo has them, and numpy's own archives, which JAX's programs write.
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from detrex.checkpoint.digests import verify
from detrex.checkpoint.reading.numpy_files import read_npz
from detrex.checkpoint.reading.safe_pickle.plain_data import ForbiddenNameError, UnfitContentError
from detrex.checkpoint.reading.safe_pickle.tensors import NUMBER_TYPES
from detrex.checkpoint.reading.safe_pickle.unpickler import SafeUnpickler
from detrex.checkpoint.reading.safe_pickle.values import NAMES, check_shape
from detrex.checkpoint.reading.torch_files import MAGIC, read_pickle, read_zip
from detrex.errors import CheckpointError
from detrex.files import foreign_kind


def read_file(file: Path) -> Any:
    """Read what a weights file holds, on the CPU, whatever its kind.

    Args:
        file: a file that exists.

    Returns:
        The content as it is nested in the file; arrays in pickles are still numpy arrays.

    Raises:
        CheckpointError: it is damaged or of an unknown kind, needs code to be read, or is not what
            the digest beside it says (see `detrex.checkpoint.digests`).
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
        verify(file)
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}): check its permissions"
        ) from error
    if head.startswith(b"PK\x03\x04"):
        return _read_archive(file)
    if MAGIC in head:
        return read_as_data(file, read_pickle)
    if file.suffix == ".safetensors" or is_safetensors(head, file.stat().st_size):
        return _read_safetensors(file)
    if head.startswith(b"\x80") or (file.suffix == ".pkl" and head):
        return read_as_data(file, _read_arrays)
    kind = foreign_kind(head)
    raise CheckpointError(
        f"{file} is not a weights file{f' ({kind})' if kind else ''}: expected one written by "
        "torch.save or safetensors, or a pickle of numpy arrays"
    )


def is_safetensors(head: bytes, size: int) -> bool:
    """Tell a file of safetensors by its first bytes, nine at least, and its size in bytes."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_as_data(file: Path, read: Callable[[Path], Any]) -> Any:
    """Read a file, and say in one sentence why it cannot be.

    Args:
        file: for the message, and for `read`.
        read: raises whatever it likes.

    Raises:
        CheckpointError: the file is damaged, or needs code to be read.
    """
    try:
        return read(file)
    except ForbiddenNameError as error:
        raise CheckpointError(
            f"{file} holds an object of {error}, which could run any code when it is unpickled, so "
            "the file is refused: where you trust it, load it once with torch.load(..., "
            "weights_only=False) and save its state dict alone"
        ) from error
    except UnfitContentError as error:
        raise CheckpointError(
            f"{file} holds {error}, expected dense tensors and arrays of numbers: save a state "
            "dict of these alone"
        ) from error
    except Exception as error:
        raise _damaged(file, error) from error


def _read_archive(file: Path) -> Any:
    names = _names_in_zip(file)
    if names and all(name.endswith(".npy") for name in names):
        return read_as_data(file, read_npz)
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(
            f"{file} is a TorchScript program, expected tensors only: save the state_dict() of "
            "what torch.jit.load gives"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(
            f"{file} is a zip archive without tensors, expected one written by torch.save: "
            "unpack it and name the file inside"
        )
    return read_as_data(file, read_zip)


def _names_in_zip(file: Path) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except Exception as error:
        raise _damaged(file, error) from error


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            f"{file} needs the package safetensors: run `pip install safetensors`"
        ) from error
    try:
        return {name: _checked(tensor) for name, tensor in load_file(file).items()}
    except Exception as error:
        raise _damaged(file, error) from error


def _checked(tensor: Tensor) -> Tensor:
    """Hold what safetensors admits against the bounds that other files have to keep."""
    check_shape(tuple(tensor.shape))
    if tensor.dtype not in NUMBER_TYPES:
        raise UnpicklingError(f"the number type {tensor.dtype} is not known")
    # Bytes other than 0 and 1 are no truth values.
    if tensor.dtype is torch.bool:
        return tensor.view(torch.uint8) != 0
    # What was read is a map of the file, and a file that is truncated later would end the process.
    return tensor.clone()


def _read_arrays(file: Path) -> Any:
    with file.open("rb") as stream:
        return SafeUnpickler(stream, NAMES).load()


def _damaged(file: Path, error: Exception) -> CheckpointError:
    if isinstance(error, OSError) and error.strerror:
        return CheckpointError(f"{file} cannot be read ({error.strerror}): check its disk")
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return CheckpointError(
            f"{file} takes more memory than there is (it has {file.stat().st_size} bytes): free "
            "memory, or read it on another machine"
        )
    reason = re.split(r"\.\s|\n", str(error).strip())[0].rstrip(".")[:200] or type(error).__name__
    return CheckpointError(f"{file} is truncated or damaged ({reason}): copy or download it again")
