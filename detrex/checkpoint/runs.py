"""Whose checkpoint a file is: the run's that a folder belongs to, an earlier run's, or none at all.

A checkpoint holds under ``"run"`` the identity of the run that wrote it; those of detectron2, of
the original detrex and of earlier versions hold none. Only the outline of a file is read for it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from detrex.checkpoint.reading.outline import read_outline
from detrex.checkpoint.reading.sharded_folders import REST, is_sharded_folder
from detrex.files import stamp

RUN_KEY = "run"
"""Where a checkpoint keeps the identity of its run."""

PERIODIC = re.compile(r"_(\d{7,}|final)$")
"""How the name of a checkpoint to resume from ends, without ``.pth``."""

_UNNAMED = "earlier"
_STATE = {"iteration", "trainer", "optimizer"}


@dataclass(frozen=True)
class Origin:
    """Where a file is from.

    Attributes:
        readable: whether its outline could be read.
        of_run: whether it holds the state of a run, and not weights alone.
        run: the identity of that run; empty where the file has none.
    """

    readable: bool = False
    of_run: bool = False
    run: str = ""


_known: dict[tuple[str, tuple[Any, ...]], Origin] = {}


def origin_of(file: Path) -> Origin:
    """Look where a file is from, once for each state of the file.

    Args:
        file: what may be a checkpoint.

    Returns:
        Its origin; an unreadable one for what is no file, is damaged, or may not be read.
    """
    try:
        key = (os.fspath(file), stamp(file))
        if key not in _known:
            if len(_known) > 4096:
                _known.clear()
            _known[key] = _look(file)
        return _known[key]
    except OSError:
        return Origin()


def run_in(content: Mapping[str, Any]) -> str:
    """Give the identity of the run that wrote a checkpoint; empty where it has none."""
    run = content.get(RUN_KEY)
    identity = run.get("id") if isinstance(run, Mapping) else None
    return identity if is_identity(identity) else ""


def is_identity(value: Any) -> TypeGuard[str]:
    """Tell what can be a run's identity, and a part of a file's name, whoever wrote it."""
    return isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value, re.ASCII) is not None


def written_at(file: Path) -> float:
    """Say when a file was written, in seconds since 1970; 0 for one that is gone."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def earlier_name(file: Path, identity: str) -> Path:
    """Give a free name beside a file's: the same with an identity before its ending.

    Args:
        file: the file that is to make room.
        identity: of the run that it is from; may be empty.
    """
    stem = f"{file.stem}.{identity or _UNNAMED}"
    name, count = file.with_name(stem + file.suffix), 1
    while name.exists():
        count += 1
        name = file.with_name(f"{stem}-{count}{file.suffix}")
    return name


def _look(file: Path) -> Origin:
    file = file / REST if is_sharded_folder(file) else file
    if not file.is_file():
        return Origin()
    content = read_outline(file)
    if content is None:
        return Origin()
    return Origin(True, bool(_STATE & content.keys()), run_in(content))
