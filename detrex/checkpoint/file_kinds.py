"""The kinds of weights files, told by the first bytes and not by the name, and how each is read.

torch's zip archives and its older pickles (both with ``weights_only=True``), safetensors, and
pickles of numpy arrays as detectron2's model zoo has them.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.checkpoint.safe_pickle import ArrayUnpickler, ForbiddenClassError
from detrex.errors import CheckpointError

_TORCH_PICKLE_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"


def _first_sentence(error: BaseException) -> str:
    text = str(error).strip().rpartition("WeightsUnpickler error: ")[2]
    return re.split(r"\.\s|\n", text)[0].rstrip(".") if text else type(error).__name__


def read_file(file: Path) -> Any:
    """Read what a weights file holds, on the CPU, whatever its kind.

    Args:
        file: a file that exists.

    Returns:
        The content as it is nested in the file; arrays in pickles are still numpy arrays.

    Raises:
        CheckpointError: it is damaged or of an unknown kind, or needs code to be read.
    """
    with file.open("rb") as stream:
        head = stream.read(64)
    if head.startswith(b"PK\x03\x04") or _TORCH_PICKLE_MAGIC in head:
        return _read_torch(file)
    if file.suffix == ".safetensors" or _is_safetensors(head, file.stat().st_size):
        return _read_safetensors(file)
    if head.startswith(b"\x80") or (file.suffix == ".pkl" and head):
        return _read_arrays(file)
    hint = ""
    if not head:
        hint = " (it is empty)"
    elif head.startswith(b"version https://git-lfs"):
        hint = " (it is a Git LFS pointer: run `git lfs pull`)"
    elif head.lstrip()[:1] == b"<":
        hint = " (it is a web page)"
    raise CheckpointError(
        f"{file} is not a weights file{hint}: expected one written by torch.save or safetensors, "
        "or a pickle of numpy arrays"
    )


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _read_torch(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error)
        if forbidden := re.search(r"(?:GLOBAL |class ')([\w.]+)", reason):
            raise _needs_code(file, forbidden.group(1)) from error
        if "TorchScript" in reason:
            raise CheckpointError(
                f"{file} is a TorchScript program, expected tensors only: save the state_dict() of "
                "what torch.jit.load gives"
            ) from error
        if zipfile.is_zipfile(file) and not _has_torch_record(file):
            raise CheckpointError(
                f"{file} is a zip archive without tensors, expected one written by torch.save: "
                "unpack it and name the file inside"
            ) from error
        raise _damaged(file, error) from error


def _numpy_globals() -> list[Any]:
    """List what torch must know to read numpy's numbers and arrays, which run no code either."""
    functions = [(f, n) for n, f in ArrayUnpickler.CALLABLES.items() if n.startswith("numpy")]
    return functions + [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdFD"]


def _has_torch_record(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            f"{file} needs the package safetensors: run `pip install safetensors`"
        ) from error
    try:
        return load_file(file)
    except Exception as error:
        raise _damaged(file, error) from error


def _read_arrays(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            return ArrayUnpickler(stream, encoding="latin1").load()
    except ForbiddenClassError as error:
        raise _needs_code(file, str(error)) from error
    except Exception as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file} is truncated or damaged ({_first_sentence(error)}): copy or download it again"
    )


def _needs_code(file: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{file} holds an object of {name}, which could run any code when it is unpickled, so the "
        "file is refused: where you trust it, load it once with torch.load(..., "
        "weights_only=False) and save its state dict alone"
    )
