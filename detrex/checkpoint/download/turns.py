"""One process fetches a file, the others wait for it: turns taken by a lock beside the file.

``x.pth.lock`` is locked by the operating system, which lets go of it when its holder dies, and
``x.pth.fetching`` says who that is; both go when the file is there. Neither is opened through a
symbolic link, and nothing lies in the system's temporary folder, where others may put links.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from detrex.errors import DownloadError

if TYPE_CHECKING:
    from filelock import FileLock

logger = logging.getLogger(__name__)

PARTIAL = ".partial"
"""How what has come of a file is called behind the file's name."""

_NOTE = ".fetching"
_PAUSE = 0.05
_UNKNOWN = 1.0  # seconds after which a holder that does not say who it is is told of
# Neither through a link nor to a pipe that nobody reads.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def turn(target: Path, patience: float) -> Iterator[bool]:
    """Wait until no other process, and no other thread, fetches a file.

    Args:
        target: the file's place; its folder exists.
        patience: seconds for which what the holder has fetched may not grow.

    Returns:
        A context that tells whether it was waited for.

    Raises:
        DownloadError: the holder stands still.
    """
    lock = _lock_of(target)
    waited = False
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        waited = True
        _wait(lock, target, patience)
    try:
        write_note(target, str(read_note(target).get("tag", "")))
        yield waited
    finally:
        _leave(lock, target)


def _lock_of(target: Path) -> "FileLock":
    from filelock import FileLock

    return FileLock(beside(target, ".lock"), thread_local=False)


def tidy(target: Path) -> None:
    """Remove what a process that was killed left beside a file that is there, if it did."""
    if beside(target, _NOTE).exists():
        lock = _lock_of(target)
        with suppress(OSError, NotImplementedError):  # it is held, or the folder not ours
            lock.acquire(timeout=0)
            beside(target, PARTIAL).unlink(missing_ok=True)
            _leave(lock, target)


def _leave(lock: "FileLock", target: Path) -> None:
    if not beside(target, PARTIAL).is_file():
        beside(target, _NOTE).unlink(missing_ok=True)
    # Those who wait for a lock that is no longer there take a new one.
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _wait(lock: "FileLock", target: Path, patience: float) -> None:
    seen, since, told = None, time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=min(0.2, patience), poll_interval=_PAUSE)
            return
        except TimeoutError:
            note = read_note(target)
            holder = f"process {note.get('process', '?')} on {note.get('host', '?')}"
        if not told and (note or time.monotonic() - since > _UNKNOWN):
            logger.warning("Waiting for %s, which fetches %s", holder, target)
            told = True
        if (now := (_stamp(target), holder)) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            raise DownloadError(
                f"{target} is held by {holder}, which has fetched nothing for "
                f"DETREX_DOWNLOAD_LOCK_TIMEOUT, {patience:g} s: end that process, or wait for it"
            )


def _stamp(target: Path) -> tuple[int, int]:
    """What changes while a file arrives."""
    try:
        status = beside(target, PARTIAL).stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def write_note(target: Path, tag: str) -> None:
    """Say who fetches a file.

    Args:
        target: the file's place.
        tag: by which the server tells the file from any other that it may have under its name,
            empty where it does not say.
    """
    note = {"process": os.getpid(), "host": socket.gethostname(), "tag": tag}
    with open_own(beside(target, _NOTE)) as stream:
        stream.write(json.dumps(note).encode())


def read_note(target: Path) -> dict[str, object]:
    """Read what `write_note` wrote, empty where there is nothing that can be read."""
    file = beside(target, _NOTE)
    try:
        note = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def open_own(file: Path, start: int = 0) -> IO[bytes]:
    """Open a file to write to, one of this user's and no link that leads elsewhere.

    Args:
        file: made where it is not there.
        start: how many of its bytes stay.
    """
    stream = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | _PLAIN, 0o666), "wb")
    stream.truncate(start)
    stream.seek(start)
    return stream


def beside(target: Path, ending: str) -> Path:
    """Name a file beside another."""
    return target.with_name(target.name + ending)
