"""Work ends when it passes its bounds, in whatever it hangs."""

import socket
import threading
import time

import pytest

from detrex.checkpoint.download.watch import Limits, OutOfBoundsError, Watch
from detrex.errors import DownloadError


def limits(silence=0.05, rate=1000, total=60):
    return Limits(silence, rate, total, size=1e9, lock=1)


def test_limits__of_the_environment(monkeypatch):
    assert Limits.from_environment(7) == Limits(7, 1000, 86400, 64e9, 600)
    for name in ("TIMEOUT", "MIN_RATE", "DEADLINE", "MAX_BYTES", "LOCK_TIMEOUT"):
        monkeypatch.setenv(f"DETREX_DOWNLOAD_{name}", "2.5")
    assert Limits.from_environment(7) == Limits(2.5, 2.5, 2.5, 2.5, 2.5)


@pytest.mark.parametrize("text", ["abc", "0", "-1", "nan", "inf", "1,5"])
def test_limits__that_are_none(monkeypatch, text):
    monkeypatch.setenv("DETREX_DOWNLOAD_DEADLINE", text)
    with pytest.raises(DownloadError, match=r"DETREX_DOWNLOAD_DEADLINE is '.*', expected a number"):
        Limits.from_environment()


def test_run__gives_what_the_work_gives():
    assert Watch(limits()).run(lambda: 3) == 3
    with pytest.raises(KeyError, match="it"):
        Watch(limits()).run(lambda: {}["it"])


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (limits(), "0 bytes came in 0.2 s, fewer than DETREX_DOWNLOAD_MIN_RATE, 1000 a second"),
        (limits(total=0.1), "more than DETREX_DOWNLOAD_DEADLINE, 0.1 s"),
    ],
)
def test_run__ends_what_hangs(bounds, reason):
    late = threading.Event()
    with pytest.raises(OutOfBoundsError, match=reason):
        Watch(bounds).run(lambda: late.wait(30))
    late.set()


def test_run__goes_on_while_enough_arrives():
    watch = Watch(limits())

    def work():
        for _ in range(30):
            watch.arrived(100)
            time.sleep(0.01)
        return "whole"

    assert watch.run(work) == "whole"
    so_far = iter(range(0, 10**9, 1000))
    assert watch.run(lambda: time.sleep(0.3), progress=lambda: next(so_far)) is None


def test_run__work_given_up_is_told_so_and_its_connection_shut():
    watch, ours = Watch(limits()), socket.socketpair()
    told = threading.Event()

    def work():
        watch.opened(ours[0])
        try:
            ours[0].recv(1)  # shut, as nothing comes
            watch.arrived(1)
        except OutOfBoundsError:
            told.set()

    with pytest.raises(OutOfBoundsError):
        watch.run(work)
    assert told.wait(10)
    for end in ours:
        end.close()
