"""The processes that `detrex.engine.launch` starts: what they tell their parent, and their end.

A child writes the sentence of its error into a file of its own: text of any length, and nothing
that has to be unpickled. Torch's file beside it carries the traceback of any other error.
"""

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

import torch.multiprocessing as mp

from detrex import errors
from detrex.engine.signals import (
    INTERRUPTED,
    REQUEUE,
    StoppedByInterrupt,
    StoppedBySignal,
    name_of,
    replaceable,
    stopped_by,
)
from detrex.errors import DetrexError

logger = logging.getLogger(__name__)

START_METHOD = "spawn"
"""CUDA cannot be used in forked processes."""

_GRACE, _TERM_GRACE = 5.0, 10.0
_STOP_GRACE = 120.0
"""Seconds in which a process may write its last checkpoint when others have ended."""


def tell(folder: str | os.PathLike[str], rank: int, error: BaseException) -> None:
    """Leave an error for the parent.

    Args:
        folder: where it looks.
        rank: this process.
        error: one of the package's, or `StoppedBySignal`.
    """
    if isinstance(error, StoppedBySignal):
        kind, text = type(error).__name__, error.sentence
    else:
        known = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        kind, text = next(known).__name__, str(error)
    lost = bool(getattr(error, "is_lost", False))
    file = Path(folder, f"{rank}.json")
    with suppress(FileNotFoundError):  # of a killed parent another process has removed the folder
        file.with_suffix(".part").write_text(json.dumps([kind, text, lost]), encoding="utf-8")
        file.with_suffix(".part").replace(file)


def remove_if_orphaned(folder: str | os.PathLike[str]) -> None:
    """Remove the folder for `tell` in the place of a parent that was killed.

    Args:
        folder: where the parent would look.
    """
    parent = mp.parent_process()
    if parent is not None and not parent.is_alive():
        shutil.rmtree(folder, ignore_errors=True)


def run_children(
    body: Callable[..., Any], args: Sequence[Any], count: int, first_rank: int, folder: str
) -> None:
    """Run a function in processes, and end all of them when one ends badly.

    SIGTERM, SIGUSR1 and SIGINT are handed on to them; a second one kills them.

    Args:
        body: gets the number of the process, and ``args``.
        args: what can be pickled.
        count: of processes.
        first_rank: the rank of the first.
        folder: for `tell`.

    Raises:
        DetrexError: what one of them told, or that one was ended from outside.
        StoppedBySignal: the run was asked to stop, and did.
        ProcessRaisedException: another error, with its traceback.
    """
    context = mp.start_processes(body, tuple(args), count, join=False, start_method=START_METHOD)
    processes = list(context.processes)
    failed = None
    try:
        with _handing_on(processes):
            failed = _wait_for_failure(processes)
            if failed:
                codes = {processes[number].exitcode for number in failed}
                stops = codes <= {REQUEUE, INTERRUPTED}
                _end(processes, _STOP_GRACE if stops else _GRACE)
    finally:
        if failed is None:  # interrupted, or ended at once
            _signal(processes, signal.SIGINT)
            _end(processes)
    if not failed:
        return
    _raise_told(processes, failed, first_rank, folder)
    try:
        context.join()
    except mp.ProcessExitedException as error:
        raise DetrexError(_ended(first_rank + error.error_index, error.exit_code)) from error


def _wait_for_failure(processes: Sequence[Any]) -> list[int]:
    """Wait until all have ended well, or give the numbers of those that did not."""
    while True:
        codes = [process.exitcode for process in processes]  # once: each may end at any moment
        failed = [i for i, code in enumerate(codes) if code]
        if failed or None not in codes:
            return failed
        running = (p.sentinel for p, code in zip(processes, codes, strict=True) if code is None)
        wait(list(running), timeout=5)


def _end(processes: Sequence[Any], grace: float = _GRACE) -> None:
    """Wait a little for processes that hear of the others' end, then end those that do not."""
    for seconds, signum in ((grace, None), (_TERM_GRACE, signal.SIGTERM), (5, signal.SIGKILL)):
        if signum is not None:
            _signal(processes, signum)
        deadline = time.monotonic() + seconds
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _signal(processes: Sequence[Any], signum: int) -> None:
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signum)


@contextmanager
def _handing_on(processes: Sequence[Any]) -> Iterator[None]:
    got: list[int] = []

    def hand_on(signum: int, _frame: FrameType | None) -> None:
        got.append(signum)  # first: another may come before this one is handed on
        again = len(got) > 1
        _signal(processes, signal.SIGKILL if again else signum)
        if again:
            raise stopped_by(signum, f"Ended at once by a second signal, {name_of(signum)}.")

    try:
        before = {signum: signal.signal(signum, hand_on) for signum in replaceable()}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _raise_told(
    processes: Sequence[Any], failed: Sequence[int], first_rank: int, folder: str
) -> None:
    """Raise what says best why a run ended: the first cause before what followed from it."""
    told = {}
    for number in range(len(processes)):
        file = Path(folder, f"{first_rank + number}.json")
        if file.is_file():
            told[number] = json.loads(file.read_text(encoding="utf-8"))
    for number in failed:
        if processes[number].exitcode < 0 and number not in told:
            raise DetrexError(_ended(first_rank + number, processes[number].exitcode))
    numbers = sorted(told, key=lambda number: (told[number][2], number not in failed))
    for number in numbers:
        kind, text, _ = told[number]
        stopped = {one.__name__: one for one in (StoppedBySignal, StoppedByInterrupt)}
        raise (stopped.get(kind) or getattr(errors, kind))(text)
    codes = [process.exitcode for process in processes]
    if REQUEUE in codes:
        raise StoppedBySignal("Stopped by a signal: --resume continues from the last checkpoint.")
    if INTERRUPTED in codes:
        raise KeyboardInterrupt


def _ended(rank: int, status: int) -> str:
    """Say what became of a process that told nothing."""
    how = f"by {name_of(-status)}" if status < 0 else f"with status {status}"
    return (
        f"The process of rank {rank} was ended {how}, and all others with it: read its last lines "
        "above; SIGKILL is mostly the system's when memory is short."
    )
