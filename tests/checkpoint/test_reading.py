import argparse
import json
import pickle
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detrex.checkpoint import reading
from detrex.checkpoint.reading import (
    is_caffe2_checkpoint,
    local_path,
    read_checkpoint,
    read_state_dict,
    tensors_of,
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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_read_checkpoint__numpy_pickles_of_every_protocol(tmp_path, protocol):
    content = OrderedDict(
        a=np.arange(6.0).reshape(2, 3),
        b=np.float32(2.5),
        c=[1, "x", None],
        d=np.asfortranarray(1.0),
    )
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    got = read_checkpoint(tmp_path / "w.pkl")
    np.testing.assert_array_equal(got["a"], content["a"])
    assert got["b"] == 2.5
    assert got["c"] == [1, "x", None]


@pytest.mark.parametrize(
    "nest",
    [
        lambda t: {"model": t, "trainer": {"iteration": 3}, "iteration": 3},
        lambda t: {"state_dict": t, "epoch": 1},
        lambda t: {"student": {"x": torch.zeros(2)}, "teacher": t},
        lambda t: {"model": {"state_dict": t}},
        lambda t: {"module": t},
        lambda t: {"model_state": t},
        lambda t: {f"module.{name}": value for name, value in t.items()},
        lambda t: {"state_dict": {f"module._orig_mod.{name}": value for name, value in t.items()}},
        lambda t: {**t, "epoch": 3, "note": "text"},
    ],
)
def test_tensors_of__nesting_and_wrappers_are_taken_off(nest):
    expected = table()
    assert_same(tensors_of(nest(expected)), expected)


def test_tensors_of__a_part_named_model_is_no_nesting():
    assert list(tensors_of({"model.weight": torch.zeros(1)})) == ["model.weight"]


def test_tensors_of__without_tensors():
    with pytest.raises(CheckpointError, match=r"holds no tensors, only 'epoch', 'args'.*'model'"):
        tensors_of({"epoch": 3, "args": {}}, "w.pth")


def test_tensors_of__caffe2_names_become_detectron2_names():
    arrays = {
        "conv1_w": np.ones((4, 3, 7, 7), np.float32),
        "res_conv1_bn_s": np.full(4, 2.0, np.float32),
        "res_conv1_bn_b": np.zeros(4, np.float32),
        "res2_0_branch2a_w": np.ones((4, 4, 1, 1), np.float32),
        "res2_0_branch1_bn_s": np.ones(4, np.float32),
        "conv1_w_momentum": np.ones(1, np.float32),
    }
    got = tensors_of({"blobs": arrays})
    assert got.keys() == {
        "stem.conv1.weight",
        "stem.conv1.norm.weight",
        "stem.conv1.norm.bias",
        "stem.conv1.norm.running_mean",
        "stem.conv1.norm.running_var",
        "res2.0.conv1.weight",
        "res2.0.shortcut.norm.weight",
        "res2.0.shortcut.norm.running_mean",
        "res2.0.shortcut.norm.running_var",
    }
    norm = nn.BatchNorm2d(4).eval()
    norm.load_state_dict(
        {key.rpartition(".")[2]: value for key, value in got.items() if "stem.conv1.norm" in key}
        | {"num_batches_tracked": torch.tensor(0)}
    )
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(norm(x), 2 * x, rtol=1e-6, atol=1e-6)


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


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
        ({"model": Evil()}, "print"),
    ],
)
@pytest.mark.parametrize("write", [torch.save, _legacy])
def test_read_checkpoint__torch_file_that_needs_code(tmp_path, capsys, content, culprit, write):
    write(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"holds an object of ({culprit}), which could run"):
        read_checkpoint(tmp_path / "w.pth")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        (Evil(), "builtins.print|__builtin__.print"),
        (argparse.Namespace(), "argparse.Namespace|copy_reg._reconstructor|copyreg._reconstructor"),
        ({"a": np.array([Evil()], dtype=object)}, "builtins.print|__builtin__.print"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_read_checkpoint__pickle_that_needs_code(tmp_path, capsys, content, culprit, protocol):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match=f"holds an object of ({culprit}), which could run"):
        read_checkpoint(tmp_path / "w.pkl")
    assert "ran" not in capsys.readouterr().out


def test_read_checkpoint__not_a_dictionary(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"holds a Tensor, expected a dictionary of tensors"):
        read_checkpoint(tmp_path / "w.pth")


def test_read_checkpoint__safetensors_not_installed(tmp_path, monkeypatch):
    save_file(table(), tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        read_checkpoint(tmp_path / "w.safetensors")


def test_local_path__near_name_is_suggested(tmp_path):
    (tmp_path / "resnet50.pth").touch()
    with pytest.raises(CheckpointError, match=r"no weights file .*resnet5O.*mean 'resnet50.pth'"):
        local_path(tmp_path / "resnet5O.pth")


def test_local_path__folder(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder, expected a weights file"):
        local_path(tmp_path)


def test_local_path__heuristics_suffix_is_ignored(tmp_path, caplog):
    file = tmp_path / "w.pth"
    file.touch()
    with caplog.at_level("INFO"):
        assert local_path(f"{file}?matching_heuristics=True") == file
    assert "names are always matched" in caplog.text


def test_local_path__address_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "fetch", {"detectron2://x/w.pth": tmp_path / "w.pth"}.get)
    torch.save(table(), tmp_path / "w.pth")
    assert local_path("detectron2://x/w.pth?matching_heuristics=True") == tmp_path / "w.pth"


def test_is_caffe2_checkpoint__by_names_of_tensors():
    caffe2 = {"res2_0_branch2a_w": np.zeros(3), "lr": np.array("x")}
    assert is_caffe2_checkpoint({"blobs": caffe2, "cfg": "..."})
    assert is_caffe2_checkpoint(caffe2)
    assert not is_caffe2_checkpoint({"model": {"res2.0.conv1.weight": np.zeros(3)}})


@pytest.mark.parametrize("write", [torch.save, _legacy])
def test_read_checkpoint__numpy_in_a_torch_file(tmp_path, write):
    write({"a": np.arange(3), "best": np.float64(0.5), "b": torch.ones(2)}, tmp_path / "w.pth")
    got = read_state_dict(tmp_path / "w.pth")
    assert_same(got, {"a": torch.arange(3), "b": torch.ones(2)})


def test_read_checkpoint__safetensors_with_forged_header(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    (tmp_path / "w.pth").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(tmp_path / "w.pth")
