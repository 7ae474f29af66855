"""What a process tells its parent, and what becomes of one that is stopped or killed."""

import os
import signal
import tempfile
import time
from datetime import timedelta

import pytest

from detrex.engine import children, launch
from detrex.engine.command_line import exit_by_sentence
from detrex.errors import ConfigError, DetrexError
from detrex.utils.dist import exchange
from tests.reference import signalled
from tests.reference.forked import forked, wait_until


@pytest.fixture(autouse=True)
def _forked_children(monkeypatch):
    monkeypatch.setattr(children, "START_METHOD", "fork")
    for name in ("_GRACE", "_TERM_GRACE"):
        monkeypatch.setattr(children, name, 0.5)


class TwoWordError(ConfigError):
    """Cannot be pickled, nor made again from its text."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")
        self.stream = open(os.devnull)  # noqa: SIM115


def _raises(text, both):
    if both or int(exchange(os.getpid()).index(os.getpid())) == 1:
        raise TwoWordError("it is", text)
    exchange()


@pytest.mark.parametrize("both", [True, False])
def test_launch__error_of_any_length_that_cannot_be_pickled(both):
    with pytest.raises((ConfigError, DetrexError)) as caught:
        launch(_raises, 2, args=("too long " * 50_000, both), device="cpu")
    assert "it is too long" in str(caught.value) or "rank 1" in str(caught.value)
    assert len(str(caught.value)) > 400_000 or not both


def _program(folder, *argv):
    with exit_by_sentence():
        signalled.main([str(folder), "--num-gpus=2", *argv])


class _EndsWhenItIsAskedTwice:
    """A process that fails between two looks at it."""

    sentinel = None

    def __init__(self):
        self.codes = [None, 1]

    @property
    def exitcode(self):
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]


def test_wait_for_failure__process_that_fails_between_two_looks(monkeypatch):
    monkeypatch.setattr(children, "wait", lambda *_, **__: None)
    assert children._wait_for_failure([_EndsWhenItIsAskedTwice()]) == [0]


def _step_of(folder, rank):
    file = folder / f"step{rank}s"
    return int(file.read_text().split()[-1]) if file.exists() and file.read_text() else 0


@pytest.mark.parametrize(
    ("signum", "sentence"),
    [
        (signal.SIGSTOP, "has waited 3 s for rank 1 ("),
        (signal.SIGKILL, "The process of rank 1 was ended by SIGKILL, and all others with it"),
    ],
)
def test_launch__rank_that_is_gone_is_one_sentence(tmp_path, signum, sentence):
    (tmp_path / "hold-step1-3").touch()
    with forked(tmp_path / "log", _program, tmp_path, "--timeout=3") as program:
        pid = wait_until(lambda: _step_of(tmp_path, 1))
        wait_until(lambda: len((tmp_path / "step1s").read_text().splitlines()) == 3)
        os.kill(pid, signum)
        assert program.status() == 1
        text = program.text()
        assert not _runs(pid), "nothing of the run stays"
    said = [line for line in text.splitlines() if line.startswith("DetrexError: ")]
    assert len(said) == 1, text
    assert sentence in said[0]
    assert "Traceback" not in text


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("ranks", [1, 2])
def test_launch__second_interrupt_ends_at_once(tmp_path, ranks):
    argv = ["--num-gpus", str(ranks)]
    (tmp_path / "hold-step0-2").touch()
    with forked(tmp_path / "log", _program, tmp_path, *argv) as program:
        wait_until(lambda: _step_of(tmp_path, 0))
        wait_until(lambda: len((tmp_path / "step0s").read_text().splitlines()) == 2)
        os.killpg(program.pid, signal.SIGINT)
        wait_until(lambda: "a second Ctrl-C ends it at once" in program.text())
        time.sleep(0.5)  # signals that find a parent asleep count as one
        os.killpg(program.pid, signal.SIGINT)
        assert program.status(15) == 130
        told = [line for line in program.text().splitlines() if line.startswith("detrex: ")]
    assert told == [
        "detrex: Interrupted; --resume continues from the last checkpoint, or from the start where "
        "none was written."
        if ranks == 1
        else "detrex: Ended at once by a second signal, Ctrl-C (SIGINT)."
    ]


def _exits():
    raise SystemExit(3 * exchange(os.getpid()).index(os.getpid()))


def test_launch__process_that_exits_is_one_sentence():
    with pytest.raises(DetrexError, match="of rank 1 was ended with status 3, and all others"):
        launch(_exits, 2, device="cpu")


def test_launch__second_signal_ends_at_once(tmp_path):
    (tmp_path / "hold-step0-2").touch()
    with forked(tmp_path / "log", _program, tmp_path) as program:
        pid = wait_until(lambda: _step_of(tmp_path, 0))
        wait_until(lambda: len((tmp_path / "step0s").read_text().splitlines()) == 2)
        program.send(signal.SIGTERM)
        time.sleep(0.5)
        program.send(signal.SIGTERM)
        assert program.status(15) == 75
        assert not _runs(pid)
        assert "detrex: Ended at once by a second signal" in program.text()


def test_launch__children_of_a_killed_parent_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with forked(tmp_path / "log", _program, tmp_path, "--timeout=5") as program:
        ranks = [wait_until(lambda rank=rank: _step_of(tmp_path, rank)) for rank in (0, 1)]
        assert list(tmp_path.glob("detrex-launch-*"))
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(_runs, ranks)))
    assert not list(tmp_path.glob("detrex-launch-*"))


def test_launch__machine_that_does_not_come():
    keywords = {"device": "cpu", "dist_url": "tcp://127.0.0.1:29731", "num_machines": 2}
    with pytest.raises(DetrexError, match=r"Rank 0 .* 1 s .*: 1 of 2 have, rank\(s\) 1 have"):
        launch(print, 1, timeout=timedelta(seconds=1), **keywords)
    with pytest.raises(DetrexError, match=r"Rank 1 .* found nobody at tcp://127.0.0.1:29731"):
        launch(print, 1, machine_rank=1, timeout=timedelta(seconds=1), **keywords)
