import hashlib
import io

import pytest
import torch

from detrex import files
from detrex.files import default_cache_dir, keep, read_kept, sha256_of, write_atomically


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
