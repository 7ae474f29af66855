import json
import multiprocessing
import os
import signal
import socket
import time

import pytest

from detrex.engine import do_train
from detrex.engine.run_folder import lock
from detrex.engine.run_folder.lock import LOCK, locked, require_own
from detrex.errors import RunError
from tests.reference.forked import wait_until
from tests.reference.runs import FRESH, config

fork = multiprocessing.get_context("fork")


def hold(folder, ready):
    with locked(folder):
        ready.set()
        time.sleep(60)


@pytest.fixture
def held(tmp_path):
    """A folder that another process of this machine has."""
    ready = fork.Event()
    process = fork.Process(target=hold, args=(tmp_path, ready), daemon=True)
    process.start()
    assert ready.wait(20)
    yield process
    process.kill()
    process.join()


def edit(folder, **fields):
    content = json.loads((folder / LOCK).read_text())
    (folder / LOCK).write_text(json.dumps(content | fields))


def test_locked__names_the_holder_and_is_gone_afterwards(tmp_path):
    with locked(tmp_path):
        content = json.loads((tmp_path / LOCK).read_text())
        assert (content["pid"], content["host"]) == (os.getpid(), socket.gethostname())
        with locked(str(tmp_path)):  # the command line and the loop both ask
            pass
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_locked__refused_while_the_holder_lives_and_taken_when_it_was_killed(
    held, tmp_path, caplog
):
    words = rf"is in use by process {held.pid} on {socket.gethostname()} since .*choose another"
    with pytest.raises(RunError, match=words), locked(tmp_path):
        pass
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RunError, match=words):
        do_train(FRESH, config(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before
    os.kill(held.pid, signal.SIGKILL)
    wait_until(lambda: lock._begin_of(held.pid) is None)  # a zombie, which nobody has waited for
    with locked(tmp_path):
        assert "which is no more: it is taken over" in caplog.text
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_locked__a_number_that_another_process_has_now(held, tmp_path, caplog):
    edit(tmp_path, begun=1)
    with locked(tmp_path):
        assert "whose number another process has now" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x00" * 99, b"[" * 4096, b'{"pid": "x"}'])
def test_locked__half_written_ones_count_after_moments_only(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    if content != b'{"pid": "x"}':
        with pytest.raises(RunError, match="starts at this moment"), locked(tmp_path):
            pass
    os.utime(tmp_path / LOCK, (time.time() - 700, time.time() - 700))
    with locked(tmp_path):
        require_own(tmp_path)


def test_locked__another_machine_by_its_signs(tmp_path, caplog):
    with locked(tmp_path):
        content = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(content)
    edit(tmp_path, host="node7", pid=1)
    words = (
        r"process 1 on node7 .*counts as dead after 300 s .*train\.timeouts\.lock.*remove run\.lock"
    )
    with pytest.raises(RunError, match=words), locked(tmp_path):
        pass
    os.utime(tmp_path / LOCK, (time.time() - 30, time.time() - 30))
    with pytest.raises(RunError, match=r"sign of life (29|3\d) s ago"), locked(tmp_path):
        pass
    with locked(tmp_path, silent_after=20):
        assert "silent for 30 s" in caplog.text


@pytest.mark.parametrize(
    ("theirs", "mine", "taken"),
    [
        ({"torchrun a": -1}, {"TORCHELASTIC_RUN_ID": "a"}, True),
        ({"torchrun a": -1}, {"TORCHELASTIC_RUN_ID": "b"}, False),
        ({}, {"TORCHELASTIC_RUN_ID": "none"}, False),
        ({"slurm 7.0": 0}, {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, False),
        (
            {"slurm 7.0": 0},
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1"},
            True,
        ),
        (None, {"TORCHELASTIC_RUN_ID": "a"}, False),
        (
            {"slurm 7.0": 0, "torchrun a": -1},
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "TORCHELASTIC_RUN_ID": "a"},
            True,
        ),
    ],
)
def test_locked__a_job_that_goes_on_on_another_machine(tmp_path, monkeypatch, theirs, mine, taken):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    with locked(tmp_path):
        content = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(content)
    edit(tmp_path, host="node7", jobs=theirs)
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    if taken:
        with locked(tmp_path):
            return
    with pytest.raises(RunError, match="node7"), locked(tmp_path):
        pass


def test_locked__where_the_system_does_not_tell_when_a_process_began(tmp_path, monkeypatch, caplog):
    begin_of = lock._begin_of
    monkeypatch.setattr(lock, "_begin_of", lambda pid: 0 if begin_of(pid) else None)
    with locked(tmp_path):
        content = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(RunError, match=r"counts as dead after 300 s"), locked(tmp_path):
        pass
    os.utime(tmp_path / LOCK, (time.time() - 400, time.time() - 400))
    with locked(tmp_path):  # its number may be another process's by now
        assert "silent for 400 s" in caplog.text


def test_locked__a_folder_that_can_no_longer_be_written_to(tmp_path, monkeypatch, caplog):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    with locked(tmp_path):
        monkeypatch.setattr(lock.Path, "unlink", read_only)
    assert "run.lock cannot be removed (Read-only file system)" in caplog.text


def test_require_own__when_it_was_taken_over(tmp_path):
    require_own(tmp_path)
    with locked(tmp_path):
        require_own(tmp_path)
        edit(tmp_path, token="other", host="node7")
        with pytest.raises(RunError, match=r"was taken over by process .* on node7"):
            require_own(tmp_path)
    assert os.listdir(tmp_path) == [LOCK], "it is the other's"


def test_require_own__a_lock_that_was_removed_is_written_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "_SIGN_EVERY", 0.01)
    with locked(tmp_path):
        before = json.loads((tmp_path / LOCK).read_text())
        (tmp_path / LOCK).unlink()
        require_own(tmp_path)
        assert "run.lock was removed while this run is at work" in caplog.text
        after = json.loads((tmp_path / LOCK).read_text())
        assert (after["pid"], after["token"]) == (before["pid"], before["token"])
        os.utime(tmp_path / LOCK, (1, 1))
        wait_until(lambda: (tmp_path / LOCK).stat().st_mtime > 1)
    assert os.listdir(tmp_path) == []


def test_locked__gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_SIGN_EVERY", 0.01)
    with locked(tmp_path):
        os.utime(tmp_path / LOCK, (1, 1))
        wait_until(lambda: (tmp_path / LOCK).stat().st_mtime > 1)


def test_locked__a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "fsync", full)
    words = r"run\.lock cannot be written: the disk is full"
    with pytest.raises(RunError, match=words), locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_locked__one_of_many_that_take_a_dead_runs_folder_at_once(tmp_path):
    with locked(tmp_path):
        content = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(content)
    edit(tmp_path, begun=1)
    won, start, stop = fork.Queue(), fork.Event(), fork.Event()

    def race():
        start.wait()
        try:
            with locked(tmp_path):
                won.put(True)
                stop.wait(30)
        except RunError:
            won.put(False)

    racers = [fork.Process(target=race, daemon=True) for _ in range(8)]
    for racer in racers:
        racer.start()
    start.set()
    assert sum(won.get(timeout=30) for _ in racers) == 1
    stop.set()
    for racer in racers:
        racer.join(20)
