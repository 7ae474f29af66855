"""Signals that ask a run to stop: it writes a checkpoint, and ends so that `--resume` continues it.

SIGTERM and SIGUSR1 are what clusters send before they take a machine away, SIGINT is Ctrl-C.
Between the start and the end of a step they are noted, and at its end all ranks learn of them with
the losses; where there is no step under way, in preparation or evaluation, they raise
`StoppedBySignal` at once. A second one ends the process, by a `KeyboardInterrupt` if it is SIGINT.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from detrex.data.worker_notes import let_workers_outlive
from detrex.utils.dist import get_rank
from detrex.utils.presence import LostRankError, is_of_group, present

REQUEUE = 75
"""The exit status of a run that was asked to stop: EX_TEMPFAIL, to be queued again."""

INTERRUPTED = 130
"""The exit status after SIGINT."""

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_FIRST_INTERRUPT = b"""
detrex ends after this iteration, with a checkpoint; a second Ctrl-C ends it at once.
"""

_ONE_REQUEST = 5.0
"""A cluster signals every process, and torchrun and `launch` hand on what they get: within so many
seconds a second signal is the first one, by another way."""


class StoppedBySignal(SystemExit):
    """Ends a run that was asked to stop; as an exit, with ``status``.

    Attributes:
        sentence: what was done.
    """

    status = REQUEUE

    def __init__(self, sentence: str) -> None:
        super().__init__(self.status)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class StoppedByInterrupt(StoppedBySignal, KeyboardInterrupt):
    """Ends a run that was asked to stop by SIGINT."""

    status = INTERRUPTED


class _State:
    """What this process was asked, and whether it heeds it at once."""

    heeding = False
    asked = 0
    asked_at = 0.0
    again = 0
    noting = 0
    finishing = False
    handed_on = False


def asked() -> int:
    """Give the number of the signal that asked this process to stop, 0 for none."""
    return _State.asked


def name_of(signum: int) -> str:
    """Name a signal, such as ``"SIGTERM"``."""
    return "Ctrl-C (SIGINT)" if signum == signal.SIGINT else signal.Signals(signum).name


def stopped_by(signum: int, sentence: str) -> StoppedBySignal:
    """Build what ends a run that a signal asked to stop.

    Args:
        signum: its number.
        sentence: what was done.
    """
    return (StoppedByInterrupt if signum == signal.SIGINT else StoppedBySignal)(sentence)


@contextmanager
def heeded(*signums: int, handed_on: bool = False) -> Iterator[None]:
    """Heed signals in a block; only the main thread can, and elsewhere nothing changes.

    Within a block of the kind nothing changes either.

    Args:
        signums: which; those of `STOPPING` by default.
        handed_on: whether a parent process hands its signals on to this one.
    """
    if _State.heeding or threading.current_thread() is not threading.main_thread():
        yield
        return
    _forget()
    _State.heeding, _State.handed_on = True, handed_on
    before = {
        signum: signal.signal(signum, _heed)
        for signum in replaceable()
        if signum in (signums or STOPPING)
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _forget()


def replaceable() -> list[int]:
    """List the signals of `STOPPING` whose handlers can be put back.

    For one that a host program in another language has installed, Python gives None. SIGINT that is
    ignored, as in the background of a script, or that a host program handles, stays theirs.
    """
    handlers = {signum: signal.getsignal(signum) for signum in STOPPING}
    return [
        signum
        for signum, handler in handlers.items()
        if handler is not None
        and (signum != signal.SIGINT or handler is signal.default_int_handler)
    ]


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
        if _State.handed_on and not _is_another(signum):
            return
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
        return
    _State.asked, _State.asked_at = signum, time.monotonic()
    let_workers_outlive()
    if not _State.noting:
        raise _stopped()
    if signum == signal.SIGINT and get_rank() == 0:
        with suppress(OSError):  # not by sys.stderr, which may be in the midst of a line
            os.write(2, _FIRST_INTERRUPT)


def _is_another(signum: int) -> bool:
    """Whether a later signal is not the first one, handed on.

    A terminal's SIGINT comes twice, from it and from the parent: a third one is another.
    """
    _State.again += signum == signal.SIGINT
    late = time.monotonic() - _State.asked_at > _ONE_REQUEST and not _State.finishing
    return late or _State.again > 1


def _stopped() -> StoppedBySignal:
    return stopped_by(
        _State.asked,
        f"Stopped by {name_of(_State.asked)} between two steps: --resume continues from the last "
        "checkpoint, or from the start where none was written.",
    )


def _forget() -> None:
    _State.heeding, _State.handed_on = False, False
    _State.asked, _State.again, _State.noting = 0, 0, 0


def _release_in_child() -> None:
    """In a forked process, such as a loader's worker: the run's signals are not its business."""
    for signum in STOPPING:
        if signal.getsignal(signum) is _heed:
            ends = signum == signal.SIGTERM  # the others are for all processes of the run
            signal.signal(signum, signal.SIG_DFL if ends else signal.SIG_IGN)
    _forget()


os.register_at_fork(after_in_child=_release_in_child)
