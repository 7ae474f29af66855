import errno
import hashlib
import io
import os
from pathlib import Path

import pytest
import torch

from detrex import files
from detrex.errors import RunError
from detrex.files import (
    default_cache_dir,
    foreign_kind,
    keep,
    read_kept,
    sha256_of,
    write_atomically,
    writing,
)


def test_default_cache_dir__variable(monkeypatch, tmp_path):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path


def test_default_cache_dir__home_without_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("DETREX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "detrex"


def test_sha256_of__more_than_one_chunk(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_keep__by_kind_and_key(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "default_cache_dir", lambda: tmp_path)
    keep("nets", "a", "été")
    keep("nets", "b", "two")
    assert [read_kept("nets", key) for key in ("a", "b", "c")] == ["été", "two", ""]
    assert read_kept("others", "a") == ""
    for file in (tmp_path / "nets").iterdir():
        file.write_bytes(b"\xff")
    assert read_kept("nets", "a") == ""


def test_write_atomically__keeps_the_old_where_writing_fails(tmp_path):
    file = tmp_path / "file"
    write_atomically(file, lambda stream: stream.write(b"old"))

    def fail(stream):
        stream.write(b"half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_write_atomically__raises_what_a_signal_raised_within_torch(tmp_path):
    class Interrupted(io.BytesIO):
        def write(self, data):
            if self.tell() > 100:
                raise KeyboardInterrupt
            return super().write(data)

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.pth", lambda _: torch.save([1] * 999, Interrupted()))
    assert list(tmp_path.iterdir()) == []


class Failing:
    """A stream that raises once it got so many bytes."""

    def __init__(self, error, space):
        self.error, self.space = error, space

    def write(self, data):
        self.space -= len(memoryview(data).cast("B"))
        if self.space < 0:
            raise self.error
        return len(data)

    def flush(self):
        pass


@pytest.mark.parametrize("space", [0, 70, 700, 1500, 5000])
def test_writing__what_torch_hides_behind_an_error_of_its_own(space):
    content = {"model": torch.zeros(2000)}
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    words = r"a\.pth cannot be written: the disk is full \(No space"
    with pytest.raises(RunError, match=words), writing(Path("a.pth")):
        torch.save(content, Failing(full, space))
    with pytest.raises(KeyboardInterrupt), writing(Path("a.pth")):
        torch.save(content, Failing(KeyboardInterrupt(), space))


def test_writing__lets_other_errors_through():
    for error in (RuntimeError("other"), ValueError("other"), RunError("b.pth is full")):
        with pytest.raises(type(error), match=str(error)), writing(Path("a.pth")):
            raise error


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "it is empty"),
        (b"  <!doctype html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
        (b"PK\x03\x04", ""),
    ],
)
def test_foreign_kind(head, kind):
    found = foreign_kind(head)
    assert found.startswith(kind)
    assert bool(found) == bool(kind)
