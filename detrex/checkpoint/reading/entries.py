"""Which of the tables of tensors in a checkpoint is meant.

Training programs write ``{"model": ..., "ema": {"module": ...}, "optimizer": ...}`` and many other
nestings. An exponential average is taken before the raw weights, since it is what its authors
evaluate; two tables of equal rank, a student's and a teacher's, are told apart by name only::

    weights="run.pth#teacher"          the table under "teacher"
    weights="run.pth#model.encoder_q"  of the table under "model" the names that start with
                                       "encoder_q."
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.checkpoint.report import examples
from detrex.errors import CheckpointError, did_you_mean

logger = logging.getLogger(__name__)

AVERAGE = re.compile(r"(^|[._-])(ema|swa|avg|averaged?|polyak)([._-]|$)", re.IGNORECASE)
"""Names of exponential and other averages of weights."""

# timm's order where a file has several.
_ORDER = ("state_dict_ema", "model_ema", "state_dict", "model")
_RAW = (
    *("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network"),
    *("weights", "params", "blobs"),
)
_SIDES = re.compile(r"(^|[._-])(teacher|student|target|online|momentum)([._-]|$)", re.IGNORECASE)
# What a run keeps beside its networks.
_STATE = re.compile(
    r"optim|sched|scaler|trainer|callback|hook|loop|criterion|(^|_)(amp|rng|args|loss)", re.I
)
_ENTRY = re.compile(r"#([\w.-]+)$")
_MOST_LISTED = 6


def split_entry(source: str) -> tuple[str, str]:
    """Split the entry off that is wanted of a file.

    Args:
        source: a path or an address, with or without ``#entry`` behind it; a file whose own name
            has such an end is meant as a whole.

    Returns:
        The path or address, and the entry, empty where none is named.
    """
    found = _ENTRY.search(source)
    if found is None or os.path.exists(os.path.expanduser(source)):
        return source, ""
    return source[: found.start()], found.group(1)


def named_entry(content: Mapping[str, Any], entry: str, source: str) -> dict[str, Any]:
    """Give the part of a checkpoint that a user names.

    Args:
        content: all that the file holds.
        entry: keys with dots between them; what is left of it after the last nesting is a prefix
            of the tensors' names.
        source: how to call the file in an error.

    Returns:
        The part, with the prefix taken off.

    Raises:
        CheckpointError: there is no such part.
    """
    part: Mapping[str, Any] = content
    rest = entry
    while rest and (key := _leading_key(part, rest)) is not None:
        part, rest = part[key], rest[len(key) + 1 :]
    if rest:
        start = f"{rest}."
        part = {name[len(start) :]: v for name, v in part.items() if str(name).startswith(start)}
    if not holds_tensors(part):
        known = list(_entries(content))
        raise CheckpointError(
            f"{source} has no entry {entry!r} with tensors, it has {_listed(known)}: name one of "
            f"these behind '#'.{did_you_mean(entry, known)}"
        )
    return dict(part)


def wanted_table(content: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Descend to the table of tensors that a checkpoint is about.

    Args:
        content: all that the file holds, or a state dict.
        source: how to call it in a message.

    Returns:
        The innermost mapping; `content` itself where nothing is nested.

    Raises:
        CheckpointError: it has several tables of equal rank.
    """
    path = ""
    while (key := _preferred(content, source, path)) is not None:
        content, path = content[key], f"{path}{key}."
    return content


def holds_tensors(value: Any) -> bool:
    """Whether a value is a mapping with tensors in it, at any depth."""
    return isinstance(value, Mapping) and any(
        is_tensor(v) or holds_tensors(v) for v in value.values()
    )


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or an array of numbers."""
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    )


def same_tensors(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two mappings hold the same tensors under the same names, at any depth."""
    if a.keys() != b.keys():
        return False
    return all(_same(value, b[name]) for name, value in a.items())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return same_tensors(a, b)
    if is_tensor(a) and is_tensor(b):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b)


def _leading_key(part: Any, path: str) -> str | None:
    """The longest key of a mapping that a dotted path starts with, and that nests further."""
    if not isinstance(part, Mapping):
        return None
    keys = [k for k, v in part.items() if isinstance(v, Mapping) and f"{path}.".startswith(f"{k}.")]
    return max(keys, key=len, default=None)


def _preferred(content: Mapping[str, Any], source: str, path: str) -> str | None:
    """The entry to descend into, None where the tensors are here."""
    nests = [k for k, v in content.items() if holds_tensors(v) and not _STATE.search(str(k))]
    nests = [key for key in nests if isinstance(key, str)]
    known = [key for key in nests if key in _RAW or AVERAGE.search(key) or _SIDES.search(key)]
    if any(is_tensor(value) for value in content.values()):
        nests = known  # a state dict with something odd beside it
    averages = [key for key in nests if AVERAGE.search(key)]
    raw = [key for key in nests if key in _RAW]
    sides = [key for key in nests if _SIDES.search(key)]
    candidates = averages or (raw if raw and not sides else nests)
    ordered = _ORDER if averages or not sides else ()
    first = next((key for key in ordered if key in candidates), None)
    if len(candidates) > 1 and first is None and not _all_same(content, candidates):
        raise CheckpointError(
            f"{source} holds several networks, {_listed([path + key for key in candidates])}: "
            f"name the one wanted behind the file, as in '#{path}{candidates[0]}', or give a "
            "dictionary's own entry"
        )
    chosen = first or next(iter(candidates), None)
    if averages and len(nests) > 1:
        logger.info(
            "%s: the average %r is taken; for the raw weights put '#%s' behind the file",
            source,
            f"{path}{chosen}",
            path + next(key for key in nests if key != chosen),
        )
    return chosen


def _all_same(content: Mapping[str, Any], keys: list[str]) -> bool:
    return all(same_tensors(content[keys[0]], content[key]) for key in keys[1:])


def _entries(content: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all that holds tensors."""
    for key, value in content.items():
        if holds_tensors(value):
            yield f"{path}{key}"
            yield from _entries(value, f"{path}{key}.")


def _listed(entries: list[str]) -> str:
    return examples([entry[:60] for entry in entries], _MOST_LISTED)
