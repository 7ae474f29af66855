"""Read a weights file of any common kind, without ever running code that the file brings along.

    path or address -> local_path -> read_checkpoint (what the file holds)
                                  -> read_state_dict (the one table of tensors in it)

Which kinds there are, and how each is read, is in `detrex.checkpoint.reading.file_formats`.
"""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.checkpoint.download import fetch, is_address, shown
from detrex.checkpoint.reading.caffe2 import from_caffe2, is_caffe2
from detrex.checkpoint.reading.entries import is_tensor, named_entry, split_entry, wanted_table
from detrex.checkpoint.reading.file_formats import read_file
from detrex.checkpoint.reading.folders import (
    LOCAL_FOLDER,
    is_index,
    read_shards,
    shard_names,
    weights_in,
)
from detrex.checkpoint.reading.safe_pickle.plain_data import shorten
from detrex.checkpoint.reading.sharded_folders import METADATA, read_sharded
from detrex.checkpoint.reading.wholeness import fault_of
from detrex.errors import CheckpointError, did_you_mean

logger = logging.getLogger(__name__)

# What DistributedDataParallel puts before every name.
_WRAPPER = "module."
# What torch.compile, FSDP, activation checkpointing and Fabric put anywhere.
_INNER_WRAPPERS = re.compile(
    r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# Matching takes the dots of all names, for each family of names.
_LONGEST_NAME, _MOST_DOTS = 1000, 50
_HEURISTICS_SUFFIX = re.compile(r"[?&]matching_heuristics=(True|False)$")


def local_path(source: str | os.PathLike[str]) -> Path:
    """Find a weights file on this machine, fetching it first where it is an address.

    Args:
        source: a path, or an address (``https://``, ``hf-hub:``, ``detectron2://``, ...; see
            `detrex.checkpoint.download`), which is fetched once and cached. detectron2's suffix
            ``?matching_heuristics=True`` is accepted and does nothing. A folder, with or without
            timm's ``local-dir:`` before it, stands for the weights in it.

    Returns:
        The path of a file that exists.

    Raises:
        CheckpointError: there is no such file.
        DownloadError: it cannot be fetched.
    """
    name = os.fspath(source)
    stripped = _HEURISTICS_SUFFIX.sub("", name)
    if stripped != name:
        logger.info(
            "Ignoring 'matching_heuristics' of %s: names are always matched", shown(stripped)
        )
    path = _fetched(stripped) if is_address(stripped) else _expanded(stripped)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            return weights_in(path)
        raise CheckpointError(_why_no_file(path))
    except OSError as error:
        raise CheckpointError(
            f"{str(path)[:300]} cannot be read ({error.strerror}): check the path and its "
            "permissions"
        ) from error


def _fetched(address: str) -> Path:
    """Fetch a file, and the shards beside it where it is their index."""
    path = fetch(address, fault_of)
    if is_index(path):
        folder = address.removesuffix(path.name).rstrip("/")
        for name in shard_names(path):
            if name == Path(name).name:  # else reading refuses it
                fetch(f"{folder}/{name}", fault_of)
    return path


def _why_no_file(path: Path) -> str:
    if path.exists():
        return f"{path} is a device or a pipe, expected a weights file: copy it to a file first"
    if path.is_symlink():
        return (
            f"{path} is a link to a file that is not there, or to itself: restore the file or name "
            "another"
        )
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no weights file {path}: check the path.{did_you_mean(path.name, siblings)}"


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path.removeprefix(LOCAL_FOLDER)))


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read everything that a weights file holds, on the CPU, as it is nested in the file.

    Args:
        path: a ``.pth``, ``.pt``, ``.bin``, ``.pkl``, ``.npz`` or ``.safetensors`` file, the index
            of a file in shards (``model.safetensors.index.json``), a folder (of weights, or one
            that ``torch.distributed.checkpoint`` wrote), or an address (see `local_path`);
            ``#entry`` behind it names one of several tables (see
            `detrex.checkpoint.reading.entries`).

    Returns:
        The file's dictionary: a table of tensors, or one that has such tables under names such as
        ``"model"``. Arrays in pickles are still numpy arrays.

    Raises:
        CheckpointError: there is no such file or entry, it is damaged or of an unknown kind, it
            needs code to be read, or it holds something other than a dictionary.
        TypeError: something else than a path or an address.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"a weights file is named by a path or an address, got a {type(path).__name__}: give "
            "'model.pth', for instance."
        )
    source, entry = split_entry(os.fspath(path))
    file = local_path(source)
    if file.name == METADATA:
        content: Any = read_sharded(file.parent)
    else:
        content = read_shards(file) if is_index(file) else read_file(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__}, expected a dictionary of tensors: "
            "save model.state_dict() instead"
        )
    return named_entry(content, entry, str(file)) if entry else dict(content)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the table of tensors in a weights file.

    Args:
        path: as in `read_checkpoint`.

    Returns:
        Tensors by name, in the file's order, on the CPU; see `tensors_of`.

    Raises:
        CheckpointError: as in `read_checkpoint`, or when the file holds no tensors.
    """
    return tensors_of(read_checkpoint(path), shown(str(path)))


def tensors_of(content: Mapping[str, Any], source: str = "a dictionary") -> dict[str, Tensor]:
    """Take the table of tensors out of a checkpoint's nesting.

    Args:
        content: what `read_checkpoint` returned, or any state dict.
        source: how to call it in an error.

    Returns:
        Tensors by name, in the order of ``content``. The nesting under ``"model"``,
        ``"state_dict"``, ``"ema"`` and the like is gone (see `wanted_table`), and so
        are a ``module.`` before every name and the marks of other wrappers; numpy arrays are
        tensors, Caffe2 names are detectron2's, and what is no tensor is left out.

    Raises:
        CheckpointError: it holds no tensors, or several tables of equal rank.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{source} holds a {type(content).__name__} where its weights should be, expected a "
            "state dict, bare or under one of 'model', 'state_dict', 'ema': take another copy"
        )
    content = wanted_table(content, source)
    tensors = {str(name): _as_tensor(value) for name, value in content.items() if is_tensor(value)}
    if not tensors:
        raise CheckpointError(
            f"{source} holds no tensors, only {_examples(content)}: expected a state dict, bare or "
            "under one of 'model', 'state_dict', 'ema'"
        )
    tensors = _without_wrappers(tensors)
    tensors = from_caffe2(tensors) if is_caffe2(tensors) else tensors
    for name in tensors:
        if len(name) > _LONGEST_NAME or name.count(".") > _MOST_DOTS:
            raise CheckpointError(
                f"{source} holds a tensor whose name has {len(name)} characters and "
                f"{name.count('.')} dots, '{shorten(name)}', expected at most {_LONGEST_NAME} and "
                f"{_MOST_DOTS}: give a state dict of modules"
            )
    return tensors


def is_caffe2_checkpoint(content: Mapping[str, Any]) -> bool:
    """Tell a file of Detectron's, whose networks were trained with Caffe2.

    Args:
        content: what `read_checkpoint` returned.

    Returns:
        Whether its tensors have Caffe2's names, which `tensors_of` takes away.
    """
    table = wanted_table(content, "a dictionary")
    return is_caffe2(name for name, value in table.items() if is_tensor(value))


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    bare = {_INNER_WRAPPERS.sub("", name): value for name, value in tensors.items()}
    tensors = bare if len(bare) == len(tensors) else tensors
    while all(name.startswith(_WRAPPER) for name in tensors):
        tensors = {name.removeprefix(_WRAPPER): value for name, value in tensors.items()}
    return tensors


def _as_tensor(value: Tensor | np.ndarray) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    return torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))


def _examples(names: Mapping[str, Any]) -> str:
    return ", ".join(repr(shorten(name)) for name in list(names)[:4]) or "an empty dictionary"
