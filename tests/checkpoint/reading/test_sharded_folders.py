import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import MetadataIndex

from detrex.checkpoint import read_checkpoint, read_state_dict
from detrex.checkpoint.reading.sharded_folders import ShardedFolder, split_sharded
from detrex.errors import CheckpointError
from tests.reference.sharded_files import in_parts


class Runs:
    """What a pickle may hold that its reader is not to do."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def write_by_torch(folder, content):
    """As a user of torch alone does, without a process group."""
    with pytest.warns(UserWarning, match="assuming the intent is to save in a single process"):
        dcp.save(content, storage_writer=dcp.FileSystemWriter(folder))


def content():
    torch.manual_seed(0)
    return {
        "model": {"weight": torch.randn(5, 3), "half": torch.randn(4).half()},
        "counts": torch.arange(7),
        "epoch": 3,
        "texts": ["a", "b"],
    }


def test_read_checkpoint__what_torch_wrote(tmp_path):
    write_by_torch(tmp_path, content())
    held = read_checkpoint(tmp_path)
    assert held["epoch"] == 3
    assert held["texts"] == ["a", "b"]
    torch.testing.assert_close(held["model"], content()["model"], rtol=0, atol=0)
    torch.testing.assert_close(held["counts"], content()["counts"], rtol=0, atol=0)
    assert list(read_state_dict(tmp_path)) == ["weight", "half"]


def test_read_checkpoint__parts_become_a_whole(tmp_path):
    whole = in_parts(tmp_path)
    for place in (tmp_path, tmp_path / ".metadata"):
        torch.testing.assert_close(read_checkpoint(place)["weight"], whole, rtol=0, atol=0)
    folder = ShardedFolder(tmp_path)
    part = folder.entries["weight"].parts[1]
    torch.testing.assert_close(folder.read_part("weight", part), whole[2:], rtol=0, atol=0)


def entry_of(metadata):
    return metadata.state_dict_metadata["weight"]


def place_of(metadata, row):
    return metadata.storage_data[MetadataIndex("weight", (row, 0))]


def leads_out(metadata):
    place_of(metadata, 0).relative_path = "../secret.distcp"


def is_absent(metadata):
    place_of(metadata, 0).relative_path = "__7_0.distcp"


def is_too_long(metadata):
    place_of(metadata, 0).length = 10**12


def is_negative(metadata):
    place_of(metadata, 2).offset = -5


def is_huge(metadata):
    entry_of(metadata).size = torch.Size((2**40, 3))


def has_a_gap(metadata):
    del entry_of(metadata).chunks[0]


def overlaps(metadata):
    first, second = entry_of(metadata).chunks
    first.offsets = torch.Size((1, 0))
    metadata.storage_data[MetadataIndex("weight", (1, 0))] = place_of(metadata, 0)
    assert second


def of_another_type(metadata):
    entry_of(metadata).properties.dtype = torch.int32


def swapped(metadata):
    first, second = place_of(metadata, 0), place_of(metadata, 2)
    first.relative_path, second.relative_path = second.relative_path, first.relative_path


def has_no_places(metadata):
    metadata.storage_data = {}


def is_compressed(metadata):
    place_of(metadata, 0).transform_descriptors = ["stream.zstd"]


def is_no_table(metadata):
    metadata.state_dict_metadata = [1, 2]


def claims_the_same_bytes_often(metadata):
    for number in range(100):
        name = f"copy{number}"
        metadata.state_dict_metadata[name] = entry_of(metadata)
        for row in (0, 2):
            metadata.storage_data[MetadataIndex(name, (row, 0))] = place_of(metadata, row)


BROKEN = {
    leads_out: "lacks the file",
    is_absent: "lacks the file",
    is_too_long: "a part is cut off",
    is_negative: "a part is cut off",
    is_huge: "incomplete",
    has_a_gap: "incomplete",
    overlaps: "overlap",
    of_another_type: "holds something else than the part of 'weight'",
    swapped: "a part is cut off|holds something else than|has too few bytes|damaged",
    has_no_places: "a part has no place in a file",
    is_compressed: "parts that are compressed",
    is_no_table: "its index has no tables",
    claims_the_same_bytes_often: "its parts are larger than its files",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_read_checkpoint__an_index_at_odds_with_its_files(tmp_path, broken):
    (tmp_path / "secret.distcp").write_bytes(b"0" * 2000)
    in_parts(tmp_path / "folder", broken)
    with pytest.raises(CheckpointError, match=BROKEN[broken]) as told:
        read_checkpoint(tmp_path / "folder")
    assert len(str(told.value)) < 500
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("where", ["index", "planner", "object"])
def test_read_checkpoint__runs_no_code(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    if where == "object":
        write_by_torch(folder, content() | {"epoch": Runs()})
    elif where == "index":
        in_parts(folder)
        (folder / ".metadata").write_bytes(pickle.dumps(Runs()))
    else:
        in_parts(folder, lambda metadata: setattr(metadata, "planner_data", Runs()))
    with pytest.raises(CheckpointError, match=r"posix\.mkdir, which could run any code"):
        read_checkpoint(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize("file", [".metadata", "__1_0.distcp"])
def test_read_checkpoint__cut_short_anywhere(tmp_path, file):
    in_parts(tmp_path)
    whole = (tmp_path / file).read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / file).write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path)


def test_read_checkpoint__a_flipped_byte_of_a_part(tmp_path):
    in_parts(tmp_path)
    file = tmp_path / "__1_0.distcp"
    data = bytearray(file.read_bytes())
    data[data.index(torch.arange(15.0)[6:].numpy().tobytes()) + 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"__1_0\.distcp is truncated or damaged"):
        read_checkpoint(tmp_path)


def test_split_sharded__and_put_together_again():
    tensors = [torch.randn(3) for _ in range(4)]
    nested = {
        "model": {"a.b": tensors[0], "c": tensors[1]},
        "trainer": {"state": {0: {"m": tensors[2], "step": 5}}, "rows": [1, tensors[3]]},
    }
    found, rest = split_sharded(nested, lambda value: any(value is t for t in tensors))
    assert list(found) == ["model.a.b", "model.c", "trainer.state.0.m"]
    assert rest["trainer"]["state"] == {0: {"step": 5}}
    assert rest["sharded"]["trainer.state.0.m"] == ["trainer", "state", 0, "m"]
    assert rest["model"] == {}
