import argparse
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detrex.checkpoint.reading.state_dict import (
    read_checkpoint,
    read_state_dict,
)
from detrex.errors import CheckpointError


def table():
    return {"a.weight": torch.randn(3, 5), "a.bias": torch.randn(3), "n": torch.tensor(7)}


def assert_same(got, expected):
    assert list(got) == list(expected)
    torch.testing.assert_close(got, dict(expected), rtol=0, atol=0)


def _legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _numpy_pickle(content, path):
    arrays = {name: value.numpy() for name, value in content.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=2))


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("w.pth", torch.save),
        ("w.bin", torch.save),
        ("w.pt", _legacy),
        ("w.pkl", _numpy_pickle),
        ("w.weights", _numpy_pickle),
        ("w.safetensors", save_file),
        ("no_ending", save_file),
    ],
)
def test_read_state_dict__every_kind(tmp_path, name, write):
    expected = table()
    write(expected, tmp_path / name)
    got = read_state_dict(tmp_path / name)
    assert_same({key: got[key] for key in expected}, expected)
    assert got.keys() == expected.keys()


def _truncate(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("w.pth", torch.save),
        ("w.pt", _legacy),
        ("w.pkl", _numpy_pickle),
        ("w.safetensors", save_file),
    ],
)
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_read_checkpoint__truncated(tmp_path, name, write, keep):
    write({f"{i}.weight": torch.randn(64, 64) for i in range(4)}, tmp_path / name)
    _truncate(tmp_path / name, keep)
    with pytest.raises(CheckpointError, match=rf"{name} is truncated or damaged \(.+\): copy or"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (
            "notes.pth",
            b"hello, this is text\n",
            "not a weights file: expected one written",
        ),
        ("empty.pth", b"", r"not a weights file \(it is empty\)"),
        ("page.pth", b"<!doctype html>", r"\(it is a web page\)"),
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid", r"run `git lfs pull`"),
        ("text.pkl", b"hello, this is text\n", "truncated or damaged"),
        ("text.safetensors", b"hello, this is text\n", "truncated or damaged"),
    ],
)
def test_read_checkpoint__not_a_weights_file(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(tmp_path / name)


def test_read_checkpoint__plain_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("weights/readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"zip archive without tensors.*unpack it"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_read_checkpoint__torchscript(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"TorchScript program.*state_dict"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ({"model": {}, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (nn.Linear(2, 3), r"torch\.nn\.modules\.linear\.Linear"),
        ({"model": Evil()}, "builtins.print"),
    ],
)
@pytest.mark.parametrize("write", [torch.save, _legacy])
def test_read_checkpoint__torch_file_that_needs_code(tmp_path, capsys, content, culprit, write):
    write(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"holds an object of ({culprit}), which could run"):
        read_checkpoint(tmp_path / "w.pth")
    assert "ran" not in capsys.readouterr().out


def test_read_checkpoint__safetensors_not_installed(tmp_path, monkeypatch):
    save_file(table(), tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        read_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize("write", [torch.save, _legacy])
def test_read_checkpoint__numpy_in_a_torch_file(tmp_path, write):
    write({"a": np.arange(3), "best": np.float64(0.5), "b": torch.ones(2)}, tmp_path / "w.pth")
    got = read_state_dict(tmp_path / "w.pth")
    assert_same(got, {"a": torch.arange(3), "b": torch.ones(2)})


def _described(shape=(1,), place=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


@pytest.mark.parametrize(
    ("header", "claimed"),
    [
        ({"a": _described([9], [0, 36])}, None),
        ({"a": _described([9])}, None),
        ({"a": _described(), "b": _described()}, None),
        ({"a": _described(), "b": _described(place=[8, 12])}, None),
        ({"a": _described([2**32, 2**32])}, None),
        ({"a": _described([-1])}, None),
        ({"a": _described([0, 2**62, 2**62], [0, 0]), "b": _described()}, None),
        ({"a": _described([1] * 1000)}, None),
        ({"a": _described(place=[4, 0])}, None),
        ({"a": _described([8], dtype="F4")}, None),
        ({"a": _described(dtype="X")}, None),
        (b"[" * 10**5, None),
        (b'{"a":' * 10**5, None),
        (b'{"\xff": 1}', None),
        (b"{", 10**8),
        (b"{}", 2**62),
    ],
)
def test_read_checkpoint__safetensors_with_forged_header(tmp_path, header, claimed):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = (claimed or len(header)).to_bytes(8, "little")
    (tmp_path / "w.safetensors").write_bytes(size + header + bytes(4))
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(tmp_path / "w.safetensors")


def test_read_checkpoint__safetensors_truth_values_are_0_or_1(tmp_path):
    header = json.dumps({"a": _described([4], dtype="BOOL")}).encode()
    data = len(header).to_bytes(8, "little") + header + b"\0\1\2\xff"
    (tmp_path / "w.safetensors").write_bytes(data)
    got = read_checkpoint(tmp_path / "w.safetensors")["a"]
    assert got.view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_read_checkpoint__no_permission(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    torch.save(table(), tmp_path / "w.pth")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\): check its"):
        read_checkpoint(tmp_path / "w.pth")


def test_read_checkpoint__safetensors_that_is_truncated_later(tmp_path):
    """What was read is no map of the file, whose end would end the process."""
    expected = {"a": torch.randn(300, 300)}
    save_file(expected, tmp_path / "w.safetensors")
    got = read_checkpoint(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"")
    assert_same(got, expected)


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (MemoryError(), r"takes more memory than there is \(it has \d+ bytes\): free"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "takes more memory"),
        (
            OSError(5, "Input/output error"),
            r"cannot be read \(Input/output error\): check",
        ),
    ],
)
def test_read_checkpoint__what_is_no_fault_of_the_file(tmp_path, monkeypatch, error, match):
    def fail(*_args, **_options):
        raise error

    torch.save(table(), tmp_path / "w.pth")
    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(tmp_path / "w.pth")
