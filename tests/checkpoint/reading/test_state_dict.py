import os

import numpy as np
import pytest
import torch
from torch import nn

from detrex.checkpoint.reading import state_dict
from detrex.checkpoint.reading.state_dict import (
    is_caffe2_checkpoint,
    local_path,
    read_checkpoint,
    tensors_of,
)
from detrex.errors import CheckpointError


def table():
    return {"a.weight": torch.randn(3, 5), "a.bias": torch.randn(3), "n": torch.tensor(7)}


def assert_same(got, expected):
    assert list(got) == list(expected)
    torch.testing.assert_close(got, dict(expected), rtol=0, atol=0)


@pytest.mark.parametrize(
    "nest",
    [
        lambda t: {"model": t, "trainer": {"iteration": 3}, "iteration": 3},
        lambda t: {"state_dict": t, "epoch": 1},
        lambda t: {"teacher": t, "epoch": 3},
        lambda t: {name.replace(".", "._orig_mod."): value for name, value in t.items()},
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


def test_read_checkpoint__not_a_dictionary(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"holds a Tensor, expected a dictionary of tensors"):
        read_checkpoint(tmp_path / "w.pth")


def test_local_path__near_name_is_suggested(tmp_path):
    (tmp_path / "resnet50.pth").touch()
    with pytest.raises(CheckpointError, match=r"no weights file .*resnet5O.*mean 'resnet50.pth'"):
        local_path(tmp_path / "resnet5O.pth")


def test_local_path__folder(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder with 0 weights files"):
        local_path(tmp_path)


def test_local_path__neither_file_nor_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    (tmp_path / "gone.pth").symlink_to("nowhere.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    for name, match in [
        ("pipe.pth", "is a device or a pipe"),
        ("zero.pth", "is a device or a pipe"),
        ("gone.pth", "is a link to a file that is not there"),
        ("loop.pth", "is a link to a file that is not there"),
        ("x" * 300, r"cannot be read \(File name too long\)"),
        ("a\0b.pth", "there is no weights file"),
    ]:
        with pytest.raises(CheckpointError, match=match):
            local_path(tmp_path / name)


def test_local_path__home_of_nobody():
    with pytest.raises(CheckpointError, match="there is no weights file ~nobody-of-this-name/w"):
        local_path("~nobody-of-this-name/w.pth")


def test_tensors_of__arrays_of_another_byte_order():
    values = np.arange(6.0).reshape(2, 3)
    got = tensors_of({"a": values.astype(">f8"), "b": values[::-1, ::-1]})
    np.testing.assert_array_equal(got["a"].numpy(), values)
    np.testing.assert_array_equal(got["b"].numpy(), values[::-1, ::-1])


def test_tensors_of__a_long_name_is_shortened_in_the_error():
    with pytest.raises(CheckpointError) as error:
        tensors_of({"x" * 10**5: 1, "a\nb": 2})
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_local_path__heuristics_suffix_is_ignored(tmp_path, caplog):
    file = tmp_path / "w.pth"
    file.touch()
    with caplog.at_level("INFO"):
        assert local_path(f"{file}?matching_heuristics=True") == file
    assert "names are always matched" in caplog.text


def test_local_path__address_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(state_dict, "fetch", {"detectron2://x/w.pth": tmp_path / "w.pth"}.get)
    torch.save(table(), tmp_path / "w.pth")
    assert local_path("detectron2://x/w.pth?matching_heuristics=True") == tmp_path / "w.pth"


def test_is_caffe2_checkpoint__by_names_of_tensors():
    caffe2 = {"res2_0_branch2a_w": np.zeros(3), "lr": np.array("x")}
    assert is_caffe2_checkpoint({"blobs": caffe2, "cfg": "..."})
    assert is_caffe2_checkpoint(caffe2)
    assert not is_caffe2_checkpoint({"model": {"res2.0.conv1.weight": np.zeros(3)}})


@pytest.mark.parametrize("path", [None, 3, b"w.pth", []])
def test_read_checkpoint__neither_path_nor_address(path):
    with pytest.raises(TypeError, match="a weights file is named by a path or an address, got a"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["x" * 1001, ".".join("a" * 52), "." * 2000])
def test_tensors_of__a_name_beyond_any_module(name):
    with pytest.raises(CheckpointError, match=r"name has \d+ characters and \d+ dots, '.*',") as e:
        tensors_of({"a": torch.ones(1), name: torch.ones(1)}, "w.pth")
    assert len(str(e.value)) < 400


@pytest.mark.parametrize("content", [None, [1], "text"])
def test_tensors_of__no_table(content):
    with pytest.raises(CheckpointError, match="where its weights should be, expected a state dict"):
        tensors_of(content, "w.pth")


def test_is_caffe2_checkpoint__keys_that_are_no_texts():
    assert not is_caffe2_checkpoint({5: torch.ones(1), None: torch.ones(2)})
    assert is_caffe2_checkpoint({5: torch.ones(1), "conv1_w": torch.ones(2)})
