"""Run trials in processes forked from this one, several at a time, and see how each ends."""

import ctypes
import faulthandler
import json
import multiprocessing.util
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from detrex.errors import DetrexError
from tests.faults.trials import FACTS, Ending, Result, Trial, Wrong, classify

OF_TORCH = "pytorch-errorfile-"  # stays when the processes of a run are killed
JUNK = (".unfinished", ".partial", ".part", ".lock", ".tmp", ".incomplete")
LARGEST_FILE = 1 << 30
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans of a trial become children of this process


class Attempt:
    """A trial that runs."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.folder = Path(tempfile.mkdtemp(prefix="fault-"))
        for name in ("work", "home", "cache", "tmp"):
            (self.folder / name).mkdir()
        self.start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_trial(trial, self.folder)

    def ended(self) -> Result | None:
        """Give the result, once there is one."""
        late = time.monotonic() - self.start > self.trial.seconds
        if late:
            _end_group(self.pid)
        pid, status = os.waitpid(self.pid, 0 if late else os.WNOHANG)
        if not pid:
            return None
        seconds = time.monotonic() - self.start
        code = os.waitstatus_to_exitcode(status)
        ending = Ending(
            status=int(self.trial.seconds) if late else max(code, 0),
            signal=max(-code, 0),
            late=late,
            stdout=self._read("stdout"),
            stderr=self._read("stderr"),
            wrong=self._read("wrong"),
        )
        outcome, why = classify(self.trial.expected, ending)
        facts: dict[str, object] = {}
        for line in self._read("facts").splitlines():
            facts |= json.loads(line)
        result = Result(
            *(self.trial.kind, self.trial.name, self.trial.expected, outcome, why),
            seconds=seconds,
            junk=(*self._junk(), *_processes_left(self.pid)),
            facts=facts,
            output=(ending.stdout[-3000:] + ending.stderr[-6000:]),
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        return result

    def _read(self, name: str) -> str:
        file = self.folder / name
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def _junk(self) -> list[str]:
        """Unfinished files, and whatever is in its temporary folder.

        A lock in the cache folder stays, for others may wait for it.
        """
        files = [file.relative_to(self.folder) for file in self.folder.rglob("*") if file.is_file()]
        return [
            str(file)
            for file in files
            if (file.parts[0] == "tmp" and not file.name.startswith(OF_TORCH))
            or (
                file.name.endswith(JUNK) and not (file.parts[0] == "cache" and ".lock" in file.name)
            )
        ]


def attempt(trial: Trial) -> Result:
    """Run one trial."""
    return next(attempt_all([trial]))


def attempt_all(trials: Iterable[Trial], jobs: int = 1) -> Iterator[Result]:
    """Run trials, so many at a time, and give their results as they end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    waiting, running, exhausted = iter(trials), list[Attempt](), False
    try:
        while running or not exhausted:
            while len(running) < jobs and not exhausted:
                trial = next(waiting, None)
                exhausted = trial is None
                if trial is not None:
                    running.append(Attempt(trial))
            ended = [(each, result) for each in running if (result := each.ended())]
            for each, result in ended:
                running.remove(each)
                yield result
            if not ended:
                time.sleep(0.005)
    finally:
        for each in running:
            _end_group(each.pid)


def _be_the_trial(trial: Trial, folder: Path) -> None:
    """Body of the forked process; never returns."""
    status, inherited = 70, finalizers()
    try:
        _settle_in(trial, folder)
        status = status_of(trial.run, folder / "wrong")
        # what the interpreter waits for at its end; what the parent registered stays the parent's
        threading._shutdown()
        multiprocessing.util._exit_function()
        finalize(inherited)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def finalizers() -> set[Any]:
    """Give what this process's `weakref.finalize` objects are at present."""
    return set(weakref.finalize._registry)  # type: ignore[attr-defined]


def finalize(inherited: set[Any]) -> None:
    """Call those that a forked process has made, and not those of its parent, as its end would."""
    for one in finalizers() - inherited:
        one()


def _settle_in(trial: Trial, folder: Path) -> None:
    """Make this process a session with folders, streams and limits of its own."""
    os.setsid()
    faulthandler.disable()  # pytest's, which writes to streams of its own
    for name in ("stdout", "stderr"):
        target = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, getattr(sys, f"__{name}__").fileno())
        os.close(target)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder / "work")
    cache = str(folder / "cache")
    names = ("DETREX_CACHE", "FVCORE_CACHE", "TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME")
    os.environ |= dict.fromkeys(names, cache)
    os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    os.environ[FACTS] = str(folder / "facts")
    tempfile.tempdir = None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    addresses = _addresses() + trial.memory
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))


def status_of(run: Callable[[], object], wrong: Path) -> int:
    """Call what is tried, and end as the command line would.

    Args:
        run: see `Trial.run`.
        wrong: gets the text of a `Wrong`.

    Returns:
        The exit status.
    """
    try:
        status = run()
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            return 1
    except DetrexError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except Wrong as verdict:
        wrong.write_text(str(verdict) or "wrong", encoding="utf-8")
        return 0
    except BaseException:
        traceback.print_exc()
        return 1
    return int(status) if isinstance(status, int) else 0


def _processes_left(group: int) -> list[str]:
    """End what a trial has left running, and say that there was something."""
    for _ in range(200):  # those that are ending already have two seconds
        _reap(group)
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return []
        time.sleep(0.01)
    _end_group(group)
    time.sleep(0.05)
    _reap(group)
    return ["a process"]


def _end_group(group: int) -> None:
    for end in (os.killpg, os.kill):  # a process that has just been forked has no group yet
        with suppress(ProcessLookupError):
            end(group, signal.SIGKILL)


def _reap(group: int) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def _addresses() -> int:
    """Bytes of addresses of this process, 0 where the system does not tell."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[0]) * resource.getpagesize() if file.is_file() else 0
