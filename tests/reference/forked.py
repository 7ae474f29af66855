"""A program in a process of its own, forked from the tests' one: it need not import torch."""

import multiprocessing
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """A function in a forked process, as the main program of an interpreter would run it.

    Attributes:
        log: the file that gets what it prints.
    """

    def __init__(self, log, function, *args):
        if torch.get_num_threads() > 1:
            pytest.skip("a forked process waits for ever for OpenMP's threads of its parent")
        self.log = log
        self._process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(function, args)
        )
        self._process.start()
        self.pid = self._process.pid

    def _run(self, function, args):
        os.setsid()
        with open(self.log, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        function(*args)

    def send(self, signum):
        os.kill(self.pid, signum)

    def status(self, seconds=60):
        """Wait for its end, and give its exit status, that of a shell where a signal ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still runs: {self.text()[-2000:]}"
        return self._process.exitcode

    def text(self):
        return self.log.read_text(errors="replace")

    def end(self):
        """Kill it and its children, stopped ones too."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join(10)


@contextmanager
def forked(log, function, *args):
    """Run a function in a forked process for a block; nothing of it is left afterwards."""
    one = Forked(log, function, *args)
    try:
        yield one
    finally:
        one.end()


def wait_until(holds, seconds=120):
    """Wait for a condition, and give what it gave."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return value
