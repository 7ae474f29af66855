"""Files by name that are no proper weights files, and unusual ones that are: what writes each.

All are written into the current folder; what writes one returns its path.
"""

import gzip
import io
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save, save_file
from torch import nn

from benchmarks.weights_mutations import archive
from detrex.checkpoint.digests import digest_file, write_with_digest

Make = Callable[[], "str | Path"]


def network(seed: int = 0) -> nn.Module:
    """A small network with a norm, of which each seed has other values."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 7))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def table() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network(1).state_dict().items()}


def _bytes(data: bytes, name: str = "w.pth") -> Make:
    def make() -> Path:
        Path(name).write_bytes(data)
        return Path(name)

    return make


def _saved(change: Callable[[dict], object], **options: object) -> Make:
    """What torch.save writes of the table, after a change that may give another object."""

    def make() -> Path:
        tensors = table()
        changed = change(tensors)
        torch.save(tensors if changed is None else changed, "w.pth", **options)
        return Path("w.pth")

    return make


def _put(**values: object) -> Callable[[dict], None]:
    return lambda tensors: tensors.update({k.replace("_", "."): v for k, v in values.items()})


def _fill(name: str, value: float) -> Callable[[dict], None]:
    def change(tensors: dict) -> None:
        tensors[name].view(-1)[1] = value

    return change


def _safetensors(header: bytes, claimed: int | None = None, data: bytes = bytes(64)) -> Make:
    size = len(header) if claimed is None else claimed
    return _bytes(struct.pack("<Q", size) + header + data, "w.safetensors")


def _index(text: bytes, shards: dict[str, bytes] | None = None) -> Make:
    def make() -> Path:
        for name, data in (shards or {}).items():
            Path(name).write_bytes(data)
        file = Path("model.safetensors.index.json")
        file.write_bytes(text)
        return file

    return make


def _special(make_it: Callable[[str], object], name: str = "w.pth") -> Make:
    def make() -> Path:
        make_it(name)
        return Path(name)

    return make


def _socket(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)


def _in_folder(make_it: Callable[[str], object]) -> Make:
    def make() -> str:
        os.mkdir("folder")
        make_it("folder/model.pth")
        return "folder"

    return make


def _sparse_file(head: bytes, size: int) -> Callable[[str], None]:
    def make_it(name: str) -> None:
        Path(name).write_bytes(head)
        os.truncate(name, size)

    return make_it


def _npz(name: str, header: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> Make:
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data
    return _bytes(archive({f"{name}.npy": head}, compression), "w.npz")


def _header(descr: str = "<f4", shape: str = "(4,)") -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n"


def _gzipped() -> Path:
    stream = io.BytesIO()
    torch.save(table(), stream)
    Path("w.pth.gz").write_bytes(gzip.compress(stream.getvalue()))
    return Path("w.pth.gz")


def _tar() -> Path:
    torch.save(table(), "inner.pth")
    with tarfile.open("w.tar", "w") as out:
        out.add("inner.pth")
    return Path("w.tar")


def _many_entries() -> Path:
    records = {f"w/data/{i}": b"" for i in range(30_000)} | {"w/data.pkl": b"\x80\x02}."}
    Path("w.pth").write_bytes(archive(records))
    return Path("w.pth")


def _digest_of_another(text: bytes) -> Make:
    def make() -> Path:
        write_with_digest(Path("w.pth"), lambda stream: torch.save(table(), stream))
        digest_file(Path("w.pth")).write_bytes(text)
        return Path("w.pth")

    return make


def _without_sums() -> Path:
    torch.serialization.set_crc32_options(False)
    torch.save(table(), "w.pth")
    return Path("w.pth")


def _named(name: str) -> Make:
    def make() -> str:
        torch.save(table(), "w.pth")
        os.rename("w.pth", name)
        return name

    return make


def _observed(tensors: dict) -> dict:
    return {"model": tensors, "best": torch.tensor(float("-inf")), "note": "\u00e9"}


def _save_numpy(write: Callable[..., None]) -> Make:
    def make() -> Path:
        write("w.npz", **{name: tensor.numpy() for name, tensor in table().items()})
        return Path("w.npz")

    return make


def _save_safetensors() -> Path:
    save_file(table(), "w")
    return Path("w")


def _bit_flipped() -> Path:
    """The lowest bit of the exponent of a weight, which is still a number."""
    torch.save(table(), "w.pth")
    data = bytearray(Path("w.pth").read_bytes())
    at = data.index(table()["2.weight"].numpy().tobytes())
    data[at + 2] ^= 128
    Path("w.pth").write_bytes(data)
    return Path("w.pth")


NAN, INF = float("nan"), float("inf")
CONV = "0.weight"
DEEP = b'{"a":' * 100_000
QUANTIZED = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)

ODD: list[tuple[str, Make]] = [
    # no files
    ("missing", lambda: "nothing.pth"),
    ("fifo", _special(os.mkfifo)),
    ("fifo named safetensors", _special(os.mkfifo, "w.safetensors")),
    ("fifo as an index", _special(os.mkfifo, "model.safetensors.index.json")),
    ("socket", _special(_socket)),
    ("folder", _special(os.mkdir)),
    ("folder of a fifo", _in_folder(os.mkfifo)),
    ("folder of a folder", _in_folder(os.mkdir)),
    ("folder of a loop", _in_folder(lambda name: os.symlink("model.pth", name))),
    ("link to itself", _special(lambda name: os.symlink(name, name))),
    ("link to nothing", _special(lambda name: os.symlink("gone", name))),
    ("link to a device", _special(lambda name: os.symlink("/dev/zero", name))),
    *((f"device {name}", lambda name=name: f"/dev/{name}") for name in ("zero", "null", "full")),
    ("its own memory", lambda: "/proc/self/mem"),
    ("its own map", lambda: "/proc/self/maps"),
    ("a name too long", lambda: "x" * 5000),
    ("a part of a name too long", lambda: "x" * 300 + ".pth"),
    ("a name with NUL", lambda: "a\0b.pth"),
    ("a name that is no UTF-8", lambda: os.fsdecode(b"gone\xff\xfe.pth")),
    ("a file that is no UTF-8", lambda: os.fsdecode(_bytes(b"text", os.fsdecode(b"\xff.pth"))())),
    ("a name with lines", _bytes(b"text", "a\nb\x1b[2J.pth")),
    # other kinds
    ("empty", _bytes(b"")),
    ("empty pickle", _bytes(b"", "w.pkl")),
    ("empty safetensors", _bytes(b"", "w.safetensors")),
    ("text", _bytes(b"hello\n" * 9)),
    ("a web page", _bytes(b"<!doctype html><html></html>")),
    ("a pointer of git lfs", _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1")),
    ("zeros", _bytes(bytes(4096))),
    ("ones", _bytes(b"\xff" * 4096)),
    ("sparse file", _special(_sparse_file(b"", 2**29))),
    ("sparse pickle", _special(_sparse_file(b"\x80\x02", 2**29), "w.pkl")),
    ("sparse safetensors", _special(_sparse_file(b"\0\0\0\0\1\0\0\0{", 2**29), "w.safetensors")),
    ("sparse archive", _special(_sparse_file(b"PK\x03\x04", 2**29))),
    ("sparse index", _special(_sparse_file(b"{}", 2**29), "model.safetensors.index.json")),
    ("gzip", _gzipped),
    ("tar", _tar),
    ("onnx", _bytes(b"\x08\x08\x12\x07pytorch\x1a\x051.2.3:\x80")),
    ("gguf", _bytes(b"GGUF\x03\0\0\0" + bytes(64), "w.gguf")),
    ("hdf5", _bytes(b"\x89HDF\r\n\x1a\n" + bytes(64), "w.h5")),
    ("elf", _bytes(b"\x7fELF" + bytes(64))),
    ("a picture", _bytes(b"\xff\xd8\xff\xe0" + bytes(64))),
    ("a key", _bytes(b"-----BEGIN PRIVATE KEY-----\n")),
    ("an archive of texts", _bytes(archive({"a.txt": b"x"}), "w.zip")),
    ("an empty archive", _bytes(archive({}), "w.pth")),
    ("an archive in an archive", _bytes(archive({"w/data.pkl": archive({"a": b""})}))),
    # tensors that are not plain
    ("sparse", _saved(_put(a_b=torch.eye(3).to_sparse()))),
    ("sparse csr", _saved(_put(a_b=torch.eye(3).to_sparse_csr()))),
    ("quantized", _saved(_put(a_b=QUANTIZED))),
    ("meta", _saved(_put(a_b=torch.empty(3, device="meta")))),
    ("nested", _saved(_put(a_b=torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])))),
    ("objects", _saved(_put(a_b=np.array([object()])))),
    ("records", _saved(_put(a_b=np.zeros(3, "f4,i4")))),
    ("a module", _saved(lambda _: network(1))),
    ("a function", _saved(lambda t: {"model": t, "f": os.getcwd})),
    ("a list", _saved(lambda t: list(t.values()))),
    ("a tensor alone", _saved(lambda t: t[CONV])),
    ("no tensors", _saved(lambda _: {"lr": 0.1})),
    ("an empty dictionary", _saved(lambda _: {})),
    ("keys that are numbers", _saved(lambda t: dict(enumerate(t.values())))),
    (
        "complex weights",
        _saved(lambda t: {k: v.to(torch.complex64) * 1j for k, v in t.items() if v.ndim == 9}),
    ),
    ("another network", _saved(lambda t: {f"x.{k}": v[None] for k, v in t.items()})),
    # values
    *(
        (f"{value} in {name}", _saved(_fill(name, value)))
        for name in (CONV, "1.running_var", "2.bias")
        for value in (NAN, INF, -INF)
    ),
    ("all NaN", _saved(lambda t: {k: v * NAN for k, v in t.items()})),
    ("NaN in half precision", _saved(lambda t: {k: (v * NAN).half() for k, v in t.items()})),
    ("NaN in an older file", _saved(_fill(CONV, NAN), _use_new_zipfile_serialization=False)),
    ("NaN in safetensors", _bytes(save({k: v * NAN for k, v in table().items()}), "w")),
    ("a flipped bit", _bit_flipped),
    # headers and indices
    ("header of 2^60", _safetensors(b"{}", 2**60)),
    ("header of 2^63", _safetensors(b"{}", 2**63)),
    ("header of all", _safetensors(b"{}", 66)),
    ("header deep", _safetensors(DEEP)),
    ("header deep in brackets", _safetensors(b"[" * 100_000)),
    ("header no text", _safetensors(b'{"\xff":1}')),
    (
        "header with a half character",
        _safetensors(
            b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', data=bytes(4)
        ),
    ),
    (
        "header twice the same name",
        _safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            data=bytes(8),
        ),
    ),
    (
        "header with many axes",
        _safetensors(
            b'{"a":{"dtype":"F32","shape":[' + b"1," * 5000 + b'1],"data_offsets":[0,4]}}',
            data=bytes(4),
        ),
    ),
    ("index deep", _index(b"[" * 100_000)),
    ("index deep in names", _index(DEEP)),
    ("index no text", _index(b"\xff\xfe\0")),
    ("index with a long number", _index(b'{"weight_map": ' + b"9" * 100_000 + b"}")),
    ("index of itself", _index(b'{"weight_map": {"a": "model.safetensors.index.json"}}')),
    ("index of the folder", _index(b'{"weight_map": {"a": "."}}')),
    ("index of the folder above", _index(b'{"weight_map": {"a": ".."}}')),
    ("index of a path", _index(b'{"weight_map": {"a": "/etc/passwd"}}')),
    ("index of a long name", _index(b'{"weight_map": {"a": "' + b"x" * 10**6 + b'"}}')),
    ("index of a name with NUL", _index(b'{"weight_map": {"a": "a\\u0000b"}}')),
    ("index of a half character", _index(b'{"weight_map": {"a": "\\ud800"}}')),
    ("index of nothing", _index(b'{"weight_map": {}}')),
    ("index of a shard that is no weights", _index(b'{"weight_map": {"a": "s"}}', {"s": b"text"})),
    (
        "index of a shard that lacks it",
        _index(
            json.dumps({"weight_map": {"\x1b[2J" + "x" * 5000: "s"}}).encode(),
            {"s": save({"b": torch.ones(1)})},
        ),
    ),
    # numpy's archives
    ("npz that inflates", _npz("a", _header(shape="(2**28,)"), bytes(2**28), zipfile.ZIP_DEFLATED)),
    ("npz by bzip2", _npz("a", _header(), bytes(16), zipfile.ZIP_BZIP2)),
    ("npz by lzma", _npz("a", _header(), bytes(16), zipfile.ZIP_LZMA)),
    ("npz of code", _npz("a", "__import__('os').abort()", bytes(16))),
    ("npz deep", _npz("a", "(" * 9000, bytes(16))),
    ("npz of minus signs", _npz("a", "-" * 9000 + "1", bytes(16))),
    ("npz of objects", _npz("a", _header("|O"), pickle.dumps(os.getcwd))),
    ("npz of records", _npz("a", _header("|V8"), bytes(32))),
    ("npz that claims much", _npz("a", _header(shape="(1099511627776,)"), bytes(16))),
    ("npz that claims little", _npz("a", _header(shape="(1,)"), bytes(16))),
    ("npz that overflows", _npz("a", _header(shape="(4294967296, 4294967296)"), b"")),
    ("npz of less than nothing", _npz("a", _header(shape="(-1,)"), bytes(16))),
    ("npz of texts", _npz("a", _header("<U4", "(1,)"), bytes(16))),
    ("many records", _many_entries),
    # digests
    ("digest of another", _digest_of_another(b"0" * 64 + b"  w.pth\n")),
    ("digest of another, bare", _digest_of_another(b"f" * 64)),
]

GOOD: list[tuple[str, Make]] = [
    ("archive", _saved(lambda t: None)),
    ("older file", _saved(lambda t: None, _use_new_zipfile_serialization=False)),
    ("protocol 5", _saved(lambda t: None, pickle_protocol=5)),
    ("no checksums", _without_sums),
    ("safetensors without an ending", _save_safetensors),
    ("npz", _save_numpy(np.savez)),
    ("npz compressed", _save_numpy(np.savez_compressed)),
    ("infinite beside the model", _saved(_observed)),
    ("a mask beside the weights", _saved(_put(m_mask=torch.full((4, 4), -INF).triu(1)))),
    (
        "parameters",
        _saved(
            lambda t: {k: nn.Parameter(v, v.is_floating_point() and False) for k, v in t.items()}
        ),
    ),
    (
        "doubles",
        _saved(lambda t: {k: v.double() if v.is_floating_point() else v for k, v in t.items()}),
    ),
    ("a name that is no UTF-8, whole", _named(os.fsdecode(b"\xff\xfe.pth"))),
    ("a name with a line, whole", _named("a\nb.pth")),
    ("torn digest", _digest_of_another(b"")),
    ("digest cut short", _digest_of_another(b"0" * 40)),
    ("digest of a page", _digest_of_another(b"<html>")),
]
