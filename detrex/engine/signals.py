"""Signals that ask a run to stop: it writes a checkpoint, and ends so that it is queued again.

SIGTERM and SIGUSR1 are what clusters send before they take a machine away. Between the start and
the end of a step they are noted, and at its end all ranks learn of them with the losses; where
there is no step under way, in preparation or evaluation, they raise `StoppedBySignal` at once, as
SIGINT raises `KeyboardInterrupt`. A second one ends the process.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from detrex.data.worker_notes import let_workers_outlive
from detrex.utils.presence import LostRankError, is_of_group, present

REQUEUE = 75
"""The exit status of a run that was asked to stop: EX_TEMPFAIL, to be queued again."""

INTERRUPTED = 130
"""The exit status after SIGINT."""

STOPPING = (signal.SIGTERM, signal.SIGUSR1)

_ONE_REQUEST = 5.0
"""A cluster signals every process, and torchrun and `launch` hand on what they get: within so many
seconds a second signal is the first one, by another way."""


class StoppedBySignal(SystemExit):
    """Ends a run that was asked to stop; as an exit, with status 75.

    Attributes:
        sentence: what was done.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(REQUEUE)
        self.sentence = sentence


class _State:
    """What this process was asked, and whether it heeds it at once."""

    asked = 0
    asked_at = 0.0
    noting = 0
    finishing = False
    handed_on = False


def asked() -> int:
    """Give the number of the signal that asked this process to stop, 0 for none."""
    return _State.asked


def name_of(signum: int) -> str:
    """Name a signal, such as ``"SIGTERM"``."""
    return signal.Signals(signum).name


@contextmanager
def heeded(*, handed_on: bool = False) -> Iterator[None]:
    """Heed SIGTERM and SIGUSR1 in a block; only the main thread can, and elsewhere nothing changes.

    Args:
        handed_on: whether a parent process hands its signals on to this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _forget()
    _State.handed_on = handed_on
    before = {signum: signal.signal(signum, _heed) for signum in replaceable()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _forget()


def replaceable() -> list[int]:
    """List the signals of `STOPPING` whose handlers can be put back.

    For one that a host program in another language has installed, Python gives None.
    """
    return [signum for signum in STOPPING if signal.getsignal(signum) is not None]


@contextmanager
def noted() -> Iterator[None]:
    """Only note signals in a block, which looks for them at moments of its own."""
    _State.noting += 1
    try:
        yield
    finally:
        _State.noting -= 1


@contextmanager
def at_once() -> Iterator[None]:
    """Within `noted`, let signals raise in a block that leaves nothing half done.

    Ranks may be in other places of the block then, so that no collective call can follow.

    Raises:
        StoppedBySignal: one came before or in the block, here or to another rank.
    """
    noting, _State.noting = _State.noting, 0
    try:
        if _State.asked:
            raise _stopped()
        yield
    except StoppedBySignal:
        ask_all_to_stop()
        raise
    except (RuntimeError, LostRankError) as error:
        if not (_asked_of_any() and is_of_group(error)):
            raise
        raise _stopped() from None
    finally:
        _State.noting = noting


@contextmanager
def finishing() -> Iterator[None]:
    """Heed no further signal in a block, which a parent process may send as others end."""
    _State.finishing = True
    try:
        yield
    finally:
        _State.finishing = False


def ask_all_to_stop() -> None:
    """Hand the signal that this process got on to all ranks."""
    here = present()
    if here and _State.asked:
        here.ask_all_to_stop(_State.asked)


def ask_this_process(signum: int) -> None:
    """Stop as if a signal had come, which another rank got; may be called in any thread."""
    if not _State.asked:
        os.kill(os.getpid(), signum)


def _asked_of_any() -> bool:
    here = present()
    if here and not _State.asked:
        _State.asked = here.asked_to_stop()
    return bool(_State.asked)


def _heed(signum: int, _frame: FrameType | None) -> None:
    if _State.asked:
        late = time.monotonic() - _State.asked_at > _ONE_REQUEST and not _State.finishing
        if _State.handed_on and not late:
            return
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
        return
    _State.asked, _State.asked_at = signum, time.monotonic()
    let_workers_outlive()
    if not _State.noting:
        raise _stopped()


def _stopped() -> StoppedBySignal:
    return StoppedBySignal(
        f"Stopped by {name_of(_State.asked)} between two steps: --resume continues from the last "
        "checkpoint."
    )


def _forget() -> None:
    _State.asked, _State.noting, _State.handed_on = 0, 0, False


def _release_in_child() -> None:
    """In a forked process, such as a loader's worker: the run's signals are not its business."""
    if signal.getsignal(signal.SIGTERM) is _heed:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        _forget()


os.register_at_fork(after_in_child=_release_in_child)
