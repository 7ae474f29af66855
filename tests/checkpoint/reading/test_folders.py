"""Folders of weights, and weights in shards."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from detrex.checkpoint.reading.folders import read_shards, weights_in
from detrex.checkpoint.reading.state_dict import read_state_dict
from detrex.errors import CheckpointError


def table():
    return {f"{i}.weight": torch.full((2, 3), float(i)) for i in range(5)}


def write_shards(folder, stem, ending, save):
    """Write a table in two files, in an order of their own, and the index."""
    places = {}
    for shard, part in enumerate((slice(3, 5), slice(0, 3)), 1):
        name = f"{stem}-0000{shard}-of-00002{ending}"
        tensors = dict(list(table().items())[part])
        save(tensors, folder / name)
        places |= dict.fromkeys(tensors, name)
    index = folder / f"{stem}{ending}.index.json"
    ordered = {name: places[name] for name in table()}
    index.write_text(json.dumps({"metadata": {"total_size": 120}, "weight_map": ordered}))
    return index


@pytest.mark.parametrize(
    ("stem", "ending", "save"),
    [("model", ".safetensors", save_file), ("pytorch_model", ".bin", torch.save)],
)
@pytest.mark.parametrize("what", ["index", "folder", "local-dir"])
def test_read_state_dict__shards(tmp_path, stem, ending, save, what):
    index = write_shards(tmp_path, stem, ending, save)
    source = {"index": index, "folder": tmp_path, "local-dir": f"local-dir:{tmp_path}"}[what]
    got = read_state_dict(source)
    assert list(got) == list(table())
    torch.testing.assert_close(got, table(), rtol=0, atol=0)


def test_read_shards__a_shard_is_absent(tmp_path):
    index = write_shards(tmp_path, "model", ".safetensors", save_file)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"needs the shard 'model-00002-of-00002.*not there"):
        read_shards(index)


def test_read_shards__leads_nowhere_else(tmp_path):
    save_file(table(), tmp_path / "outside.safetensors")
    (tmp_path / "in").mkdir()
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"0.weight": "../outside.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"needs the shard '\.\./outside\.safe.* beside it"):
        read_shards(index)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is no JSON"),
        ("[]", "no 'weight_map'"),
        ('{"weight_map": {"a": 3}}', "no 'weight_map'"),
        ('{"weight_map": {"a": "1.bin", "a": "2.bin"}}', "it names 'a' twice"),
    ],
)
def test_read_shards__not_an_index(tmp_path, text, match):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=match):
        read_shards(tmp_path / "model.safetensors.index.json")


def test_read_shards__index_and_shard_disagree(tmp_path):
    index = write_shards(tmp_path, "model", ".safetensors", save_file)
    save_file({"0.weight": torch.zeros(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks '1.weight', which model.safetensors.index"):
        read_shards(index)


def test_read_shards__two_hold_the_same_tensor(tmp_path):
    index = write_shards(tmp_path, "model", ".safetensors", save_file)
    first = {"0.weight": torch.zeros(2, 3), **dict(list(table().items())[3:])}
    save_file(first, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(
        CheckpointError, match=r"'0.weight', which another shard of model.safe"
    ) as e:
        read_shards(index)
    assert len(str(e.value)) < 500


def test_read_shards__what_the_index_leaves_out_is_there(tmp_path):
    index = write_shards(tmp_path, "model", ".safetensors", save_file)
    extra = {"extra": torch.ones(1), **dict(list(table().items())[3:])}
    save_file(extra, tmp_path / "model-00001-of-00002.safetensors")
    assert list(read_shards(index)) == [*table(), "extra"]


def test_weights_in__usual_name_or_the_only_file(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "mine.pth").touch()
    assert weights_in(tmp_path).name == "mine.pth"
    (tmp_path / "other.pth").touch()
    with pytest.raises(CheckpointError, match=r"2 weights files \(mine.pth, other.pth\), expected"):
        weights_in(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weights_in(tmp_path).name == "model.safetensors"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink(p, p)])
def test_weights_in__what_is_no_file_is_none(tmp_path, make):
    make(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"folder with 0 weights files"):
        weights_in(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, '{"a":' * 10**5, '{"weight_map": ' + "9" * 10**5 + "}", "\ufffe"],
)
def test_read_shards__hostile_index(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="is no JSON"):
        read_shards(tmp_path / "model.safetensors.index.json")


def test_read_shards__an_index_that_is_too_large(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{")
    os.truncate(index, 2**26 + 1)
    with pytest.raises(CheckpointError, match=r"it has 67108865 bytes, and at most 67108864"):
        read_shards(index)


@pytest.mark.parametrize("name", ["x" * 10**5, "a\0b", "..", ".", "", "/etc/passwd", "\ud800"])
def test_read_shards__a_name_that_cannot_be(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="needs the shard") as error:
        read_shards(index)
    assert len(str(error.value)) < 200 + 2 * len(str(tmp_path))
