"""Files of this machine: where detrex keeps its own, their hashes, and writing them whole."""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

UNFINISHED = ".unfinished"
"""How a file ends that is being written, or was when its process died."""


def default_cache_dir() -> Path:
    """``$DETREX_CACHE``, or ``~/.cache/detrex`` where that is not set."""
    return Path(os.environ.get("DETREX_CACHE") or Path.home() / ".cache" / "detrex")


def sha256_of(file: Path) -> str:
    """Give a file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def stamp(file: Path) -> tuple[str, int, int]:
    """Give what changes when a file does: its name without folders, size and time of writing."""
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns


def write_atomically(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file of which a crash at any moment leaves the old or the new, never a part.

    Args:
        file: where to; its folder exists.
        write: gets a binary stream to write to.
    """
    unfinished = file.with_name(f"{file.name[:100]}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with unfinished.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    # The new name itself must reach the disk before anything refers to it.
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
