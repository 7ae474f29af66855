"""Read a weights file of any common kind, without ever running code that the file brings along.

    path or address -> local_path -> read_checkpoint (what the file holds)
                                  -> read_state_dict (the one table of tensors in it)

The kind is told by the first bytes, not by the file's name: torch's zip archives and its older
pickles (both with ``weights_only=True``), safetensors, and pickles of numpy arrays as detectron2's
model zoo has them, for which an unpickler that knows numbers and arrays only stands here.
"""

import logging
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.checkpoint.download import fetch, is_address
from detrex.checkpoint.key_families import from_caffe2, is_caffe2
from detrex.errors import CheckpointError, did_you_mean

logger = logging.getLogger(__name__)

# Where training programs keep the table of tensors, most wanted first: an exponential average or a
# teacher is what its authors evaluate.
_NESTS = (
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "teacher",
    "student",
    "module",
    "net",
    "network",
    "weights",
    "blobs",
    "model_ema",
    "ema",
    "ema_state",
)
# What DistributedDataParallel and torch.compile put before every name.
_WRAPPERS = ("module.", "_orig_mod.")
_TORCH_PICKLE_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_HEURISTICS_SUFFIX = re.compile(r"[?&]matching_heuristics=(True|False)$")


def local_path(source: str | os.PathLike[str]) -> Path:
    """Find a weights file on this machine, fetching it first where it is an address.

    Args:
        source: a path, or an address (``https://``, ``hf-hub:``, ``detectron2://``, ...; see
            `detrex.checkpoint.download`), which is fetched once and cached. detectron2's suffix
            ``?matching_heuristics=True`` is accepted and does nothing.

    Returns:
        The path of a file that exists.

    Raises:
        CheckpointError: there is no such file.
        DownloadError: it cannot be fetched.
    """
    name = os.fspath(source)
    stripped = _HEURISTICS_SUFFIX.sub("", name)
    if stripped != name:
        logger.info("Ignoring 'matching_heuristics' of %s: names are always matched", stripped)
    path = fetch(stripped) if is_address(stripped) else Path(stripped).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, expected a weights file: name a file in it")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise CheckpointError(
        f"there is no weights file {path}: check the path.{did_you_mean(path.name, siblings)}"
    )


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read everything that a weights file holds, on the CPU, as it is nested in the file.

    Args:
        path: a ``.pth``, ``.pt``, ``.bin``, ``.pkl`` or ``.safetensors`` file, or an address; see
            `local_path`.

    Returns:
        The file's dictionary: a table of tensors, or one that has such tables under names such as
        ``"model"``. Arrays in pickles are still numpy arrays.

    Raises:
        CheckpointError: there is no such file, it is damaged or of an unknown kind, it needs code
            to be read, or it holds something other than a dictionary.
    """
    file = local_path(path)
    content = _read_file(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__}, expected a dictionary of tensors: "
            "save model.state_dict() instead"
        )
    return dict(content)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the table of tensors in a weights file.

    Args:
        path: as in `read_checkpoint`.

    Returns:
        Tensors by name, in the file's order, on the CPU; see `tensors_of`.

    Raises:
        CheckpointError: as in `read_checkpoint`, or when the file holds no tensors.
    """
    return tensors_of(read_checkpoint(path), str(path))


def tensors_of(content: Mapping[str, Any], source: str = "a dictionary") -> dict[str, Tensor]:
    """Take the table of tensors out of a checkpoint's nesting.

    Args:
        content: what `read_checkpoint` returned, or any state dict.
        source: how to call it in an error.

    Returns:
        Tensors by name, in the order of ``content``. The nesting under ``"model"``,
        ``"state_dict"``, ``"teacher"`` and the like is gone, a ``module.`` before every name too;
        numpy arrays are tensors, Caffe2 names are detectron2's, and what is no tensor is left out.

    Raises:
        CheckpointError: it holds no tensors.
    """
    content = _without_nests(content)
    tensors = {str(name): _as_tensor(value) for name, value in content.items() if _is_tensor(value)}
    if not tensors:
        raise CheckpointError(
            f"{source} holds no tensors, only {_examples(content)}: expected a state dict, bare or "
            f"under one of {', '.join(map(repr, _NESTS[:5]))}"
        )
    while prefix := next((p for p in _WRAPPERS if all(n.startswith(p) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return from_caffe2(tensors) if is_caffe2(tensors) else tensors


def is_caffe2_checkpoint(content: Mapping[str, Any]) -> bool:
    """Tell a file of Detectron's, whose networks were trained with Caffe2.

    Args:
        content: what `read_checkpoint` returned.

    Returns:
        Whether its tensors have Caffe2's names, which `tensors_of` takes away.
    """
    return is_caffe2(name for name, value in _without_nests(content).items() if _is_tensor(value))


def _without_nests(content: Mapping[str, Any]) -> Mapping[str, Any]:
    while nest := next((key for key in _NESTS if _holds_tensors(content.get(key))), None):
        content = content[nest]
    return content


def _holds_tensors(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return any(_is_tensor(v) or _holds_tensors(v) for v in value.values())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    )


def _as_tensor(value: Tensor | np.ndarray) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.from_numpy(value.copy())


def _examples(names: Mapping[str, Any]) -> str:
    return ", ".join(repr(str(name)) for name in list(names)[:4]) or "an empty dictionary"


def _first_sentence(error: BaseException) -> str:
    text = str(error).strip().rpartition("WeightsUnpickler error: ")[2]
    return re.split(r"\.\s|\n", text)[0].rstrip(".") if text else type(error).__name__


def _read_file(file: Path) -> Any:
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
    functions = [(f, n) for n, f in _ArrayUnpickler.CALLABLES.items() if n.startswith("numpy")]
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
            return _ArrayUnpickler(stream, encoding="latin1").load()
    except _ForbiddenClassError as error:
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


class _ForbiddenClassError(pickle.UnpicklingError):
    """A pickle asks for a class or function that is not needed for arrays."""


def _encode(text: str, encoding: str) -> bytes:
    """Stand for ``codecs.encode``, by which Python 3 wrote bytes into old pickles."""
    if encoding != "latin1":
        raise _ForbiddenClassError(f"codec {encoding}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickle numbers, strings, containers and numpy arrays, and refuse everything else."""

    # numpy 2 moved these functions; an array itself knows where they are.
    _ALLOWED = {
        "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
        "multiarray.scalar": np.float32(0).__reduce__()[0],
        "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    }
    CALLABLES = {
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": _encode,
        **{f"numpy.core.{name}": function for name, function in _ALLOWED.items()},
        **{f"numpy._core.{name}": function for name, function in _ALLOWED.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.CALLABLES[f"{module}.{name}"]
        except KeyError:
            raise _ForbiddenClassError(f"{module}.{name}") from None
