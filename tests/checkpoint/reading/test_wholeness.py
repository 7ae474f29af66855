"""A file of any kind that lacks its end, or is something else, is found out."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detrex.checkpoint.reading.wholeness import fault_of

TENSORS = {"a": torch.arange(5000.0), "b": torch.ones(3, 4)}
ARRAYS = {name: value.numpy() for name, value in TENSORS.items()}
WRITERS = {
    "net.pth": lambda file: torch.save(TENSORS, file),
    "old.pth": lambda file: torch.save(TENSORS, file, _use_new_zipfile_serialization=False),
    "net.safetensors": lambda file: save_file(TENSORS, file),
    "net.pkl": lambda file: file.write_bytes(pickle.dumps({"model": ARRAYS})),
    "text.pkl": lambda file: file.write_bytes(pickle.dumps({"model": ARRAYS}, protocol=0)),
    "net.npz": lambda file: np.savez(file, **ARRAYS),
    "packed.npz": lambda file: np.savez_compressed(file, **ARRAYS),
    "net.index.json": lambda file: file.write_text(json.dumps({"weight_map": {"a": "b"}})),
}


@pytest.mark.parametrize("name", WRITERS)
def test_fault_of__every_kind(tmp_path, name):
    file = tmp_path / name
    WRITERS[name](file)
    assert fault_of(file) == ""
    body = file.read_bytes()
    part = file.with_name("some.partial")
    for size in {0, 1, 9, len(body) // 2, max(1, len(body) - 100), len(body) - 1}:
        part.write_bytes(body[:size])
        assert fault_of(part, name), size
    part.write_bytes(body)
    assert fault_of(part, name) == ""


def test_fault_of__a_changed_byte_in_an_archive(tmp_path):
    file = tmp_path / "net.pth"
    torch.save(TENSORS, file)
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)
    assert fault_of(file) == "its record 'net/data/0' is damaged"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "it is empty"),
        (b"\n <!DOCTYPE html><html>log in</html>", "it is a web page"),
        (b'{"error": 1}', "it is of no kind known"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "it is a Git LFS pointer: run `git lfs pull`",
        ),
    ],
)
def test_fault_of__something_else(tmp_path, body, fault):
    file = tmp_path / "net.pth"
    file.write_bytes(body)
    assert fault_of(file) == fault


def test_fault_of__leaves_to_the_reader_what_is_whole_and_refused(tmp_path):
    file = tmp_path / "net.pth"
    file.write_bytes(pickle.dumps({"a": print}))
    assert fault_of(file) == ""
