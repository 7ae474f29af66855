"""Workers of a loader that are stopped or killed, and what is said of the picture they read."""

import os
import signal
import tempfile
import time

import pytest

from detrex.data.bad_pictures import MarkBadPictures, ReadableBatches
from detrex.data.loader import TrainLoader
from detrex.data.worker_notes import (
    _HEAD,
    NotedMapper,
    WorkerNotes,
    let_workers_outlive,
    set_timeout,
)
from detrex.errors import DataError

RECORDS = [{"file_name": f"picture{i}.jpg", "width": 7, "height": 7} for i in range(4)]


class Reads:
    """A mapper that is held up by, or ends at, one of the pictures."""

    def __init__(self, signum=None, sleeps=False):
        self.signum, self.sleeps = signum, sleeps

    def __call__(self, record):
        if record["file_name"] == "picture2.jpg":
            if self.signum:
                os.kill(os.getpid(), self.signum)
            while self.sleeps:
                time.sleep(0.1)
        return record


def batches(mapper, seconds=1.0, workers=1):
    notes = WorkerNotes("dataloader.train", seconds)
    noted = NotedMapper(MarkBadPictures(mapper), notes)
    loader = TrainLoader(RECORDS, noted, batch_size=1, num_workers=workers)
    set_timeout(loader, seconds)
    return ReadableBatches(loader, "dataloader.train", notes=notes)


@pytest.mark.parametrize(
    ("mapper", "what"),
    [
        (Reads(signal.SIGSTOP), r"\(stopped\) has been reading picture2.jpg for 1 s"),
        (Reads(sleeps=True), r"has been reading picture2.jpg for 1 s"),
    ],
)
def test_batches__worker_that_hangs(mapper, what):
    with pytest.raises(DataError, match=r"gave no batch for 1 s \(train.timeouts.data\)") as caught:
        for _ in batches(mapper):
            pass
    assert caught.match(rf"on rank 0: its worker \d+ ?{what}; look whether")


ENDED = r"was ended (by a signal \(\w+\)|from outside) while it read picture2.jpg: mostly"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_batches__worker_that_is_killed(signum):
    with pytest.raises(DataError, match=ENDED):
        for _ in batches(Reads(signum), seconds=20.0):
            pass


def test_batches__worker_gets_the_signal_of_the_whole_run():
    reads = batches(Reads(signal.SIGTERM), seconds=20.0)
    let_workers_outlive()
    seen = {batch[0]["file_name"] for batch, _ in zip(reads, range(4), strict=False)}
    assert len(seen) == 4


def test_notes__file_goes_with_them():
    notes = WorkerNotes("dataloader.train", 1.0)
    path = notes.path
    assert os.path.exists(path)
    del notes
    assert not os.path.exists(path)


def test_explain__worker_that_ended_while_it_handed_a_batch_over():
    notes = WorkerNotes("dataloader.train", 1.0)
    assert notes.explain(ConnectionResetError()) is None
    pid = 2**22 + 1  # no process has this number
    notes._mapped()[: _HEAD.size] = _HEAD.pack(pid, 0.0, 0)
    assert f"The worker {pid} of dataloader.train" in str(notes.explain(ConnectionResetError()))


def test_notes__no_room_for_them(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"cannot be noted in .*gone, 128 KiB .* point .* TMPDIR"):
        WorkerNotes("dataloader.train", 1.0)
