"""What bounds a download, and who ends it when it is over.

A timeout of a socket bounds one read, and a server can send a byte before each ends. So the work
is done in a thread of its own, and the caller waits for it, counts what arrives, and shuts the
connection when a bound is passed, in whatever it hangs: the name of a host, a handshake, headers,
or the body.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from detrex.errors import DownloadError

T = TypeVar("T")

WINDOW = 4
"""Over how many times `Limits.silence` the least rate is measured."""

_MOST = 1e15
_LAST_WORD = 0.5  # seconds for work that was given up, to close what it has open
_LONGEST_TIMEOUT = 1e6  # sockets take no more than some 10^9


@dataclass(frozen=True)
class Limits:
    """The bounds of one file's download, each set by an environment variable.

    Attributes:
        silence: seconds that a server may be silent (``DETREX_DOWNLOAD_TIMEOUT``).
        rate: bytes per second that must arrive, over `WINDOW` times that (``..._MIN_RATE``).
        total: seconds that it may take in all (``..._DEADLINE``).
        size: bytes that it may have (``..._MAX_BYTES``).
        lock: seconds that another process which fetches the same file may stand still
            (``..._LOCK_TIMEOUT``).
    """

    silence: float
    rate: float
    total: float
    size: float
    lock: float

    @classmethod
    def from_environment(cls, silence: float = 30.0) -> "Limits":
        """Read the bounds.

        Args:
            silence: that where the environment says nothing.

        Raises:
            DownloadError: a variable is no number above zero.
        """
        return cls(
            min(_setting("TIMEOUT", silence), _LONGEST_TIMEOUT),
            _setting("MIN_RATE", 1000.0),
            _setting("DEADLINE", 24 * 3600.0),
            _setting("MAX_BYTES", 64e9),
            _setting("LOCK_TIMEOUT", 600.0),
        )


def _setting(name: str, default: float) -> float:
    name = f"DETREX_DOWNLOAD_{name}"
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value <= _MOST:
        raise DownloadError(
            f"the environment variable {name} is {text[:40]!r}, expected a number above zero, up "
            f"to {_MOST:g}: correct it, or unset it"
        )
    return value


class OutOfBoundsError(TimeoutError):
    """A download passed its bounds."""


class Watch:
    """Ends the work on one file when it passes its bounds; it may be done in several attempts."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._start = self._mark = time.monotonic()
        self._arrived = 0
        self._sockets: list[socket.socket] = []
        self._worker: threading.Thread | None = None

    def arrived(self, count: int) -> None:
        """Note that so many bytes have come; raises OutOfBoundsError in work that was given up."""
        self._require_wanted()
        self._arrived += count

    def opened(self, connection: socket.socket) -> None:
        """Note a connection, to be shut when the time is over; raises as `arrived`."""
        self._sockets.append(connection)
        self._require_wanted()

    def _require_wanted(self) -> None:
        if threading.current_thread() is not self._worker:
            raise OutOfBoundsError("it was given up")

    def check(self) -> None:
        """Raise OutOfBoundsError where a bound is passed."""
        now, window = time.monotonic(), WINDOW * self.limits.silence
        if now - self._start > self.limits.total:
            raise OutOfBoundsError(
                f"it took more than DETREX_DOWNLOAD_DEADLINE, {self.limits.total:g} s"
            )
        if now - self._mark > window:
            if self._arrived < self.limits.rate * window:
                raise OutOfBoundsError(
                    f"{self._arrived} bytes came in {window:g} s, fewer than "
                    f"DETREX_DOWNLOAD_MIN_RATE, {self.limits.rate:g} a second"
                )
            self._mark, self._arrived = now, 0

    def run(
        self,
        work: Callable[[], T],
        progress: Callable[[], int] | None = None,
        stop: Callable[[], object] = lambda: None,
    ) -> T:
        """Do work in a thread of its own, for as long as the bounds allow.

        Args:
            work: calls `arrived` and `opened`; what it raises is raised here. After an error here
                its connections are shut, and it is not waited for long.
            progress: tells how much has come in all, where `work` cannot call `arrived`.
            stop: ends the work, where it has connections of its own.

        Raises:
            OutOfBoundsError: a bound is passed.
        """
        outcome: Future[T] = Future()
        self._worker = threading.Thread(target=_fulfil, args=(outcome, work), daemon=True)
        self._worker.start()
        pause = min(0.5, self.limits.silence / 4)
        start = before = progress() if progress else 0
        try:
            while not wait([outcome], pause).done:
                if progress:
                    now = progress()
                    self._arrived += max(now - before, 0)
                    before = now
                    if now - start > self.limits.size:
                        raise OutOfBoundsError("more than DETREX_DOWNLOAD_MAX_BYTES came")
                self.check()
        finally:
            self._worker = None
            if not outcome.done():
                stop()
            while self._sockets:
                with suppress(OSError):  # it is closed already
                    self._sockets.pop().shutdown(socket.SHUT_RDWR)
            wait([outcome], _LAST_WORD)
        return outcome.result()


def _fulfil(outcome: "Future[T]", work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
