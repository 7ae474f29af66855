import pickle

import pytest
import torch
from safetensors import safe_open
from torch import nn

from detrex.checkpoint import read_state_dict
from detrex.errors import CheckpointError
from detrex.inference.exact_weights import (
    fill_exactly,
    read_exactly,
    unequal_tensors,
    write_exactly,
)


class Net(nn.Module):
    """Tied layers, a view of a weight, a scalar, an empty tensor, and buffers of both kinds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.tied = self.first
        self.other = nn.Linear(4, 4)
        self.other.weight = self.first.weight
        self.scale = nn.Parameter(torch.randn(()))
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("mean", torch.tensor([1.5, 2.5]), persistent=False)
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("none", None)


def written(model, tmp_path, like=None):
    file = tmp_path / "model.safetensors"
    write_exactly(model, like or Net(), file)
    return file


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
)
def test_write_exactly__comes_back_bit_by_bit(tmp_path, dtype):
    model = Net().to(torch.float32 if dtype is torch.float8_e4m3fn else dtype)
    if dtype is torch.float8_e4m3fn:
        model.first.bias.data = model.first.bias.data.to(dtype)
    model.norm.num_batches_tracked.fill_(2**40 + 1)
    again = Net()
    assert unequal_tensors(model, again)
    file = written(model, tmp_path, again)
    fill_exactly(again, read_exactly(file), "the file")
    assert unequal_tensors(model, again) == []
    assert again.mean.dtype == model.mean.dtype
    assert again.other.weight is again.first.weight
    assert again.norm.num_batches_tracked.item() == 2**40 + 1


def test_write_exactly__holds_every_name_and_only_buffers_that_differ(tmp_path):
    model = Net()
    file = written(model, tmp_path)
    assert read_state_dict(file).keys() == model.state_dict().keys()
    model.mean += 1
    assert read_state_dict(written(model, tmp_path)).keys() == {*model.state_dict(), "mean"}
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_write_exactly__views_and_other_layouts(tmp_path):
    model, again = nn.Linear(3, 5), nn.Linear(3, 5)
    table = torch.randn(7, 10)
    model.weight.data = table[2:, :3].clone().t().contiguous().t()
    model.bias.data = table[0, ::2]
    file = written(model, tmp_path, again)
    fill_exactly(again, read_exactly(file), "the file")
    assert torch.equal(again.weight, model.weight)
    assert torch.equal(again.bias, table[0, ::2])
    assert file.stat().st_size < 1000


def test_unequal_tensors__compares_bits():
    one, other = Net(), Net()
    other.load_state_dict(one.state_dict())
    assert unequal_tensors(one, other) == []
    other.scale.data.mul_(-1).mul_(-1)
    one.mean[0] = other.mean[0] = float("nan")
    assert unequal_tensors(one, other) == []
    one.empty, other.empty = torch.zeros(0, 3), torch.zeros(3, 0)
    one.norm.bias.data[1] = -0.0
    one.register_buffer("table", torch.ones(9), persistent=False)
    assert sorted(unequal_tensors(one, other)) == ["empty", "norm.bias"]
    one.register_buffer("more", torch.ones(9))
    assert sorted(unequal_tensors(one, other)) == ["empty", "more", "norm.bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.to("meta"), "'scale' has no data"),
        (lambda m: m.register_buffer("s", torch.eye(3).to_sparse()), "'s' is sparse or quantized"),
        (lambda m: m.register_buffer("c", torch.zeros(2, dtype=torch.complex128)), "complex128"),
        (lambda m: setattr(type(m), "get_extra_state", lambda self: {"a": 1}), "keeps a dict"),
    ],
)
def test_write_exactly__refuses_what_the_format_lacks(tmp_path, change, message):
    model = type("Other", (Net,), {})()
    change(model)
    with pytest.raises(CheckpointError, match=message) as info:
        write_exactly(model, Net(), tmp_path / "a.safetensors")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": 1}), r"no whole safetensors file \(it begins otherwise"),
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<html>", "it is a web page"),
        (b"\xff" * 8 + b"{}", "begins otherwise, or is cut off"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{]", "truncated or damaged"),
    ],
)
def test_read_exactly__no_other_kind_of_file(tmp_path, content, message):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as info:
        read_exactly(file)
    assert "\n" not in str(info.value)


def test_read_exactly__no_file(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_exactly(tmp_path)
    torch.save(Net().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_exactly(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("scale"), "no value for 'scale'"),
        (lambda t: t.update(more=torch.zeros(1)), "what is not there, 'more'"),
        (lambda t: t.update(flags=torch.zeros(4)), "other shapes for 'flags'"),
        (lambda t: t["first.bias"].fill_(float("nan")), "NaN"),
    ],
)
def test_fill_exactly__wants_this_detector_to_the_last_tensor(change, message):
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = {name: value.clone() + 1 for name, value in Net().state_dict().items()}
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        fill_exactly(model, tensors, "the file")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
