import errno
import json
import os
import resource

import pytest
from detectron2.utils.events import EventStorage, JSONWriter

from detrex.errors import RunError
from detrex.utils.metrics_file import MetricsWriter, cut_metrics


def put(storage, iteration, **scalars):
    storage.iter = iteration
    storage.put_scalars(**scalars)


def test_metrics_writer__the_lines_of_detectron2s(tmp_path):
    ours, theirs = MetricsWriter(tmp_path / "a.json", 3), JSONWriter(str(tmp_path / "b.json"), 3)
    with EventStorage(0) as storage:
        for iteration in range(7):
            put(storage, iteration, loss=iteration**2 * 0.1)
            if iteration == 1:
                storage.put_scalar("AP", float("nan"), smoothing_hint=False)
            if iteration in (2, 3, 6):
                for writer in (ours, theirs, ours):
                    writer.write()
    assert (tmp_path / "a.json").read_text().splitlines() == sorted(
        (tmp_path / "b.json").read_text().splitlines(),
        key=lambda line: json.loads(line)["iteration"],
    )


def test_metrics_writer__makes_its_folder_and_mends_a_torn_line(tmp_path):
    file = tmp_path / "new" / "metrics.json"
    with EventStorage(0) as storage:
        put(storage, 3, loss=1.0)
        MetricsWriter(file).write()
        with file.open("a") as stream:
            stream.write('{"ite')
        put(storage, 4, loss=2.0)
        MetricsWriter(file, 1).write()
    assert file.read_text().splitlines()[1] == '{"ite'
    assert json.loads(file.read_text().splitlines()[2]) == {"iteration": 4, "loss": 2.0}


@pytest.mark.parametrize("space", [0, 1, 17])
def test_metrics_writer__a_full_disk_leaves_the_file_as_it_was(tmp_path, space):
    """The system refuses bytes beyond a size, as it refuses them on a full disk."""
    file = tmp_path / "metrics.json"
    with EventStorage(0) as storage:
        put(storage, 3, loss=1.0)
        writer = MetricsWriter(file)
        writer.write()
        before = file.read_bytes()
        put(storage, 4, loss=2.0)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + space, limits[1]))
        try:
            with pytest.raises(
                RunError, match=r"metrics\.json cannot be written: the file is larger"
            ):
                writer.write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert file.read_bytes() == before
        writer.write()
    assert [json.loads(line)["iteration"] for line in file.read_text().splitlines()] == [3, 4]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full to your quota"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "the disk failed"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_metrics_writer__says_why(tmp_path, monkeypatch, number, reason):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with EventStorage(0) as storage:
        put(storage, 3, loss=1.0)
        with pytest.raises(RunError, match=rf"metrics\.json cannot be written: {reason}"):
            MetricsWriter(tmp_path / "metrics.json").write()


def test_cut_metrics__lines_that_come_later_and_torn_ones(tmp_path):
    file = tmp_path / "metrics.json"
    lines = [
        b'{"iteration": 1, "x": NaN}',
        b'{"iteration": 2}',
        b'{"iteration": 7}',
        b"{\xff",
        b"7",
        b'{"iteration": 1e999}',
        b"[" * 99999,
    ]
    file.write_bytes(b"\n".join(lines) + b'\n{"iter')
    assert cut_metrics(file, lambda i: i < 5) == {1, 2}
    assert file.read_bytes() == b"\n".join(lines[:2]) + b"\n"
    status = file.stat()
    assert cut_metrics(file, lambda i: i < 5) == {1, 2}
    assert file.stat().st_ino == status.st_ino, "it is not written where nothing changes"
    assert cut_metrics(file, lambda i: False) == set()
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_cut_metrics__of_no_file_and_behind_a_link(tmp_path):
    assert cut_metrics(tmp_path / "metrics.json", lambda i: True) == set()
    assert (tmp_path / "metrics.json").read_bytes() == b""
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "real.json").write_text('{"iteration": 1}\n{"iteration": 2}\n')
    (tmp_path / "metrics.json").symlink_to("real.json")
    cut_metrics(tmp_path / "metrics.json", lambda i: i < 2)
    assert (tmp_path / "metrics.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == '{"iteration": 1}\n'


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_cut_metrics__no_file_in_its_place(tmp_path, make):
    make(tmp_path / "metrics.json")
    with pytest.raises(RunError, match=r"metrics\.json is a folder, a device or a pipe"):
        cut_metrics(tmp_path / "metrics.json", lambda i: True)
