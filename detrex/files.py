"""Files of this machine: where detrex keeps its own, their hashes, and writing them whole."""

import errno
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from detrex.errors import DetrexError, RunError, not_replaced

logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
"""How a file ends that is being written, or was when its process died."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full to your quota",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk failed",
}


def default_cache_dir() -> Path:
    """``$DETREX_CACHE``, or ``~/.cache/detrex`` where that is not set."""
    return Path(os.environ.get("DETREX_CACHE") or Path.home() / ".cache" / "detrex")


def sha256_of(file: Path) -> str:
    """Give a file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    add_to_digest(file, digest)
    return digest.hexdigest()


def add_to_digest(file: Path, digest: "hashlib._Hash") -> int:
    """Feed a file to a digest, and count its bytes."""
    count = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            count += len(chunk)
    return count


def foreign_kind(head: bytes) -> str:
    """Say what a file is that often lies in the place of weights or of a picture.

    Args:
        head: its first bytes, 64 of them.

    Returns:
        A few words, empty where they do not tell.
    """
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: run `git lfs pull`"
    return "it is a web page" if head.lstrip()[:1] == b"<" else ""


def stamp(file: Path) -> tuple[str, int, int]:
    """Give what changes when a file does: its name without folders, size and time of writing."""
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns


def read_kept(kind: str, key: str) -> str:
    """Read what `keep` wrote.

    Args:
        kind: of what is kept, the name of a folder in detrex's cache.
        key: everything that it depends on.

    Returns:
        The text, empty where there is none or it cannot be read.
    """
    try:
        return _kept_file(kind, key).read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError):
        return ""


def keep(kind: str, key: str, text: str) -> None:
    """Keep a text in detrex's cache, where that can be written; see `read_kept`."""
    try:
        file = _kept_file(kind, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda stream: stream.write(text.encode()))
    except (OSError, RuntimeError) as error:
        logger.debug("nothing is kept in %s (%s)", kind, error)


def _kept_file(kind: str, key: str) -> Path:
    """Say where a text is kept; RuntimeError where the user has no home."""
    name = hashlib.sha256(key.encode()).hexdigest()[:40]
    return default_cache_dir() / kind / f"{name}.json"


def unfinished_name(place: Path) -> Path:
    """Give what a file or folder is called, beside its place, until all of it is written."""
    return place.with_name(f"{place.name[:100]}.{uuid.uuid4().hex}{UNFINISHED}")


def has_mark(file: Path, mark: bytes, within: int) -> bool:
    """Tell whether a file has a mark in its first bytes, by which its writer knows it as its own.

    Args:
        file: what is none, such as a folder, has no mark.
        mark: what is looked for.
        within: how many bytes are read.
    """
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return mark in stream.read(within)


def write_atomically(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file of which a crash at any moment leaves the old or the new, never a part.

    Args:
        file: where to; its folder exists.
        write: gets a binary stream to write to.
    """
    unfinished = unfinished_name(file)
    try:
        with unfinished.open("xb") as stream:
            with not_replaced():  # by torch.save, which raises an error of its own
                write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Let new names in a folder reach the disk, before anything refers to them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Say of an error inside the block that a file of a run cannot be written, and why.

    Args:
        file: what the block writes.

    Raises:
        RunError: the block raised an OSError, or another error while it handled one, as
            ``torch.save`` does.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while isinstance(cause, Exception) and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None or isinstance(error, RunError):
            raise
        if not isinstance(cause, OSError):
            raise cause from None  # an interrupt, which torch.save turned into an error of its own
        known = _REASONS.get(cause.errno or 0)
        detail = f"{known} ({cause.strerror})" if known else cause.strerror or cause
        raise RunError(
            f"{file} cannot be written: {detail}; what was written before is whole: make room or "
            "mend the folder, and continue with --resume"
        ) from error


@contextmanager
def writing_to(place: str | Path, cure: str, error: type[DetrexError] = RunError) -> Iterator[None]:
    """Say of an OSError inside the block that what a user named cannot be written, and a cure.

    Args:
        place: what the user named.
        cure: what to do, the end of the sentence.
        error: the class of what is raised; other errors of this package go through.
    """
    try:
        yield
    except DetrexError:
        raise
    except OSError as cause:
        reason = cause.strerror or cause
        raise error(f"{place} cannot be written ({reason}): {cure}") from cause
