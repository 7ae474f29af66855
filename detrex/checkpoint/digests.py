"""A digest beside each checkpoint, by which a file that was damaged later is told.

``model_0000099.pth.sha256`` holds the sha256 of ``model_0000099.pth`` in the form of ``sha256sum``,
so that ``sha256sum --check *.sha256`` verifies the checkpoints of a folder without this package.
Formats of weights have no checksum, or only one of each part; a digest is one of every byte.
"""

import hashlib
import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from detrex.errors import CheckpointError
from detrex.files import sha256_of, write_atomically

logger = logging.getLogger(__name__)

_ENDING = ".sha256"
_MOST_READ = 2**16
_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:\s|$)")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r"})


def digest_file(file: Path) -> Path:
    """Say where the digest of a file is kept."""
    return file.with_name(file.name + _ENDING)


def write_with_digest(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file and its digest, of which a crash at any moment leaves no pair that disagrees.

    Args:
        file: where to; its folder exists.
        write: gets a binary stream, which it writes from the beginning to the end.
    """
    digest = hashlib.sha256()

    def write_both(stream: IO[bytes]) -> None:
        write(_Hashing(stream, digest))  # type: ignore[arg-type]
        # The new file must never stand beside the digest of the old one.
        digest_file(file).unlink(missing_ok=True)

    write_atomically(file, write_both)
    _write(file, digest.hexdigest())


def verify(file: Path) -> None:
    """Hold a file against the digest beside it, where there is one.

    Args:
        file: a file that can be read.

    Raises:
        CheckpointError: it is not the file that the digest was made of.
        OSError: it cannot be read.
    """
    place = digest_file(file)
    expected = _read(place)
    if expected and sha256_of(file) != expected:
        raise CheckpointError(
            f"{file} is truncated or damaged, or was replaced: it is not the file that "
            f"{place.name} beside it was made of; restore it, or remove that digest where you "
            "replaced it yourself"
        )


def move(file: Path, to: Path) -> None:
    """Rename a checkpoint, a file or a folder, and with it its digest, which holds the name.

    Args:
        file: what is there.
        to: a free name in the same folder.
    """
    if sha256 := _read(digest_file(file)):
        _write(to, sha256)
    file.rename(to)
    digest_file(file).unlink(missing_ok=True)


def remove(file: Path) -> None:
    """Remove a checkpoint and its digest; it is no error where they are not there."""
    digest_file(file).unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def remove_orphans(folder: Path, pattern: str = "*.pth") -> None:
    """Remove the digests in a folder whose files others have removed.

    Args:
        folder: a folder that exists.
        pattern: names of the files.
    """
    for place in folder.glob(pattern + _ENDING):
        if not place.with_name(place.name.removesuffix(_ENDING)).exists():
            place.unlink(missing_ok=True)


def _write(file: Path, sha256: str) -> None:
    escaped = file.name.translate(_ESCAPES)
    line = f"{'' if escaped == file.name else chr(92)}{sha256}  {escaped}\n"
    write_atomically(
        digest_file(file), lambda stream: stream.write(line.encode(errors="surrogateescape"))
    )


def _read(place: Path) -> str:
    """Read the sha256 in a file of digests, in lower case; empty where there is none to go by."""
    try:
        if not place.is_file():
            return ""
        with place.open("rb") as stream:
            found = _LINE.match(stream.read(_MOST_READ).decode(errors="replace").lstrip())
    except OSError as error:
        logger.warning("%s cannot be read (%s): nothing is verified", place, error.strerror)
        return ""
    if found is None:
        logger.warning("%s holds no sha256, as sha256sum writes it: nothing is verified", place)
        return ""
    return found.group(1).lower()


class _Hashing(io.RawIOBase):
    """Pass on what is written, and add it to a digest."""

    def __init__(self, stream: IO[bytes], digest: Any) -> None:
        self._stream = stream
        self._digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()
