"""One process at a time, which is named to those who wait, and whose death sets them free."""

import logging
import multiprocessing
import os
import signal
import socket
import time

import pytest

from detrex.checkpoint.download.turns import (
    PARTIAL,
    beside,
    open_own,
    read_note,
    tidy,
    turn,
    write_note,
)
from detrex.errors import DownloadError

FORK = multiprocessing.get_context("fork")


def _hold(target, seconds):
    with turn(target, 5):
        time.sleep(seconds)


def holder(target, seconds=30):
    process = FORK.Process(target=_hold, args=(target, seconds))
    process.start()
    while read_note(target).get("process") != process.pid:
        time.sleep(0.01)
    return process


@pytest.fixture
def target(tmp_path):
    return tmp_path / "net.pth"


def test_turn__leaves_nothing_but_a_part_that_has_come(target):
    with turn(target, 1) as waited:
        assert not waited
        assert read_note(target)["process"] == os.getpid()
        write_note(target, '"1"')
    assert not list(target.parent.iterdir())
    with turn(target, 1):
        write_note(target, '"1"')
        beside(target, PARTIAL).write_bytes(b"so far")
    with turn(target, 1):
        assert read_note(target)["tag"] == '"1"'


def test_tidy__after_a_holder_that_was_killed(target):
    target.write_bytes(b"whole")
    process = holder(target)
    tidy(target)
    assert read_note(target)["process"] == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    beside(target, PARTIAL).write_bytes(b"so far")
    tidy(target)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("number", [None, signal.SIGKILL])
def test_turn__waits_for_a_holder_until_it_is_done_or_dead(target, caplog, number):
    process = holder(target, seconds=0.3 if number is None else 30)
    with caplog.at_level(logging.WARNING):
        if number:
            os.kill(process.pid, number)
            process.join()
        with turn(target, 20) as waited:
            assert waited == (number is None)
    process.join()
    expected = f"Waiting for process {process.pid} on {socket.gethostname()}, which fetches"
    assert (expected in caplog.text) == (number is None)
    assert not list(target.parent.iterdir())


def test_turn__ends_when_the_holder_stands_still(target):
    process = holder(target)
    os.kill(process.pid, signal.SIGSTOP)
    expected = rf"is held by process {process.pid} on .*, which has fetched nothing for .* 0.3 s"
    with pytest.raises(DownloadError, match=expected), turn(target, 0.3):
        pytest.fail("two at once")
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_turn__waits_while_the_file_grows(target):
    process = holder(target, seconds=0.9)
    part = beside(target, PARTIAL)
    grown = FORK.Process(target=_grow, args=(part, 0.9))
    grown.start()
    with turn(target, 0.4) as waited:
        assert waited
    grown.join()
    process.join()


def _grow(file, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with file.open("ab") as stream:
            stream.write(b"more")
        time.sleep(0.05)


@pytest.mark.parametrize("ending", [".lock", ".fetching"])
@pytest.mark.parametrize("plant", ["link", "pipe"])
def test_turn__follows_no_link_that_somebody_put_there(target, tmp_path, ending, plant):
    precious = tmp_path / "precious"
    precious.write_bytes(b"data")
    if plant == "link":
        beside(target, ending).symlink_to(precious)
    else:
        os.mkfifo(beside(target, ending))
    try:
        with turn(target, 1):
            assert plant == "pipe"
    except OSError:
        pass
    assert precious.read_bytes() == b"data"


def test_open_own__keeps_the_start(target):
    target.write_bytes(b"0123456789")
    with open_own(target, 4) as stream:
        stream.write(b"x")
    assert target.read_bytes() == b"0123x"
    link = beside(target, ".link")
    link.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        open_own(link)
