import logging
import os
import shutil
import subprocess

import pytest
import torch

from detrex.checkpoint import digests, read_checkpoint
from detrex.checkpoint.digests import (
    digest_file,
    move,
    remove,
    remove_orphans,
    verify,
    write_with_digest,
)
from detrex.errors import CheckpointError
from detrex.files import sha256_of


def written(folder, name="model_0000009.pth", content=b"weights"):
    file = folder / name
    write_with_digest(file, lambda stream: stream.write(content))
    return file


@pytest.mark.parametrize("name", ["model_final.pth", "a b.pth", "back\\slash.pth", "new\nline.pth"])
@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_write_with_digest__as_sha256sum_checks_it(tmp_path, name):
    file = tmp_path / name
    move(written(tmp_path), file)
    written(tmp_path, content=b"of the run that comes after")
    check = ["sha256sum", "--check", "--strict", digest_file(file).name]
    assert subprocess.run(check, cwd=tmp_path, check=False, stdout=subprocess.PIPE).returncode == 0
    verify(file)
    file.write_bytes(b"Weights")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1
    with pytest.raises(CheckpointError, match=r"is not the file that .*\.sha256 beside it"):
        verify(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_write_with_digest__of_what_torch_writes(tmp_path, zipped):
    file = tmp_path / "w.pth"
    content = {"a": torch.randn(300, 300), "b": torch.arange(5)}
    write_with_digest(file, lambda s: torch.save(content, s, _use_new_zipfile_serialization=zipped))
    assert digest_file(file).read_text() == f"{sha256_of(file)}  w.pth\n"
    torch.testing.assert_close(read_checkpoint(file), content, rtol=0, atol=0)
    assert sorted(os.listdir(tmp_path)) == ["w.pth", "w.pth.sha256"]


@pytest.mark.parametrize("dies_at", [1, 2])
def test_write_with_digest__killed_between_its_files(tmp_path, monkeypatch, dies_at):
    """What stands there then is the old or the new file, and nothing that disagrees with it."""
    file = written(tmp_path, content=b"old")
    calls = []

    def write(*arguments, real=digests.write_atomically):
        calls.append(arguments)
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(digests, "write_atomically", write)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, content=b"new")
    assert file.read_bytes() == (b"old" if dies_at == 1 else b"new")
    verify(file)


def test_write_with_digest__no_digest_of_the_old_beside_the_new(tmp_path, monkeypatch):
    """The moment at which the new file takes its name."""
    file = written(tmp_path, content=b"old")
    seen = []
    replace = type(file).replace
    monkeypatch.setattr(
        type(file), "replace", lambda a, b: (seen.append(digest_file(file).exists()), replace(a, b))
    )
    written(tmp_path, content=b"new")
    assert seen == [False, False]
    verify(file)


def test_verify__no_digest(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"x")
    verify(tmp_path / "w.pth")


@pytest.mark.parametrize("text", [b"", b"12ab", b"\xff\xfe", b"z" * 64, b"a" * 63 + b"\n", b"<p>"])
def test_verify__a_torn_digest_is_warned_of(tmp_path, caplog, text):
    file = written(tmp_path)
    digest_file(file).write_bytes(text)
    with caplog.at_level(logging.WARNING):
        verify(file)
    assert "holds no sha256" in caplog.text


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda p: os.symlink(p, p)])
def test_verify__a_digest_that_is_no_file(tmp_path, make):
    file = written(tmp_path)
    digest_file(file).unlink()
    make(digest_file(file))
    verify(file)


def test_verify__of_both_moved_under_another_name(tmp_path):
    file = written(tmp_path)
    digest_file(file).rename(tmp_path / "best.pth.sha256")
    verify(file.rename(tmp_path / "best.pth"))


@pytest.mark.parametrize("dies_at", ["replace", "rename"])
def test_move__killed_leaves_no_pair_that_disagrees(tmp_path, monkeypatch, dies_at):
    file, moved = written(tmp_path), tmp_path / "model_0000009.earlier.pth"

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(digests.Path, dies_at, die)
        with pytest.raises(KeyboardInterrupt):
            move(file, moved)
    verify(file)
    move(file, moved)
    verify(moved)
    assert sorted(tmp_path.iterdir()) == sorted([moved, digest_file(moved)])


def test_move__without_a_digest(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"x")
    move(tmp_path / "a.pth", tmp_path / "b.pth")
    assert [file.name for file in tmp_path.iterdir()] == ["b.pth"]


def test_remove__with_the_digest(tmp_path):
    file = written(tmp_path)
    remove(file)
    remove(file)
    assert not os.listdir(tmp_path)


def test_remove_orphans__those_of_files_that_are_gone(tmp_path):
    kept, gone = written(tmp_path, "a_1.pth"), written(tmp_path, "a_2.pth")
    (tmp_path / "other.zip.sha256").touch()
    gone.unlink()
    remove_orphans(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [kept.name, "a_1.pth.sha256", "other.zip.sha256"]
