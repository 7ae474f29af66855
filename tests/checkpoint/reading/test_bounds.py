"""The memory that small files can ask for, measured by the kernel in a process of its own."""

import copy
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from detrex.checkpoint.reading import bounds
from detrex.checkpoint.reading.bounds import CONSTANT, FACTOR, PEAK, allowance
from detrex.checkpoint.reading.state_dict import read_checkpoint
from detrex.errors import CheckpointError
from tests.reference.crafted_pickles import (
    CORE,
    UTILS,
    archive,
    dtype,
    integer,
    named,
    raw,
    row,
    shape,
    storage,
    text,
)

ROOT = Path(__file__).parents[3]


def called(times, path, *arguments):
    """A function with the same arguments, called over and over: five bytes each time."""
    again = b"h\x00h\x01R" * times
    return named(path) + b"q\x00" + row(*arguments) + b"q\x01]q\x02(" + again + b"e."


def zipped(pickle, size=16):
    return archive(pickle, records=[("data/0", bytes(size))])


def compressed(data, name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(name, data)
    return stream.getvalue()


def many_records(count):
    """A directory with many names for one record."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr("data.pkl", b"\x80\x02}.")
        for number in range(count):
            entry = copy.copy(out.filelist[0])
            entry.filename = str(number)
            out.filelist.append(entry)
    return stream.getvalue()


PLACE = (storage(), integer(0), shape(1), shape(1), b"\x89", b"N")
LARGE = (storage(count=2**12), integer(0), shape(2**12), shape(1), b"\x89", b"N")
NEGATIVE = b"}" + text("neg") + b"\x88s"
BUFFER = (raw(b"1234"), dtype(), shape(1), text("C"))


def numpy_zeros(count):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count},), }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(count)


def numbered(times):
    keys = (b"J" + number.to_bytes(4, "little") for number in range(times))
    return b"}(" + b"".join(key + b"N" for key in keys) + b"u."


GREEDY = {
    "sets.pkl": lambda n: b"\x8f" * n + b".",
    "frozensets.pkl": lambda n: b"(\x91" * n + b".",
    "lists.pkl": lambda n: b"]" * 2 * n + b".",
    "tuples.pkl": lambda n: b"N" + b"\x85" * 2 * n + b".",
    "memo.pkl": lambda n: b"N" + b"\x94" * 5 * n + b".",
    "keys.pkl": lambda n: numbered(20 * n),
    "dicts.pkl": lambda n: called(n, "collections.OrderedDict"),
    "buffers.pkl": lambda n: called(n, "numpy.core.numeric._frombuffer", *BUFFER),
    "blanks.pkl": lambda n: called(n, f"{CORE}_reconstruct", named("numpy.ndarray")),
    "tensors.pth": lambda n: zipped(called(n, f"{UTILS}_rebuild_tensor_v2", *PLACE)),
    "negatives.pth": lambda n: zipped(called(n, f"{UTILS}_rebuild_tensor_v2", *PLACE, NEGATIVE)),
    "large_negatives.pth": lambda n: zipped(
        called(n, f"{UTILS}_rebuild_tensor_v2", *LARGE, NEGATIVE), 2**14
    ),
    "inflates.npz": lambda n: compressed(numpy_zeros(1000 * n), "a.npy"),
}
# What takes less than is allowed, by a little.
THRIFTY = {
    "texts.pkl": lambda n: b"]" + text("\U0001f600" + "a" * 9 * n) * 2 + b".",
    "keys.pkl": numbered,
    "records.pth": many_records,
    "lists.safetensors.index.json": lambda n: b"[" + b"[]," * n + b"[]]",
    "names.safetensors.index.json": lambda n: json.dumps({str(i): {} for i in range(n)}).encode(),
}


@pytest.mark.parametrize("name", GREEDY)
def test_allowance__of_what_a_few_bytes_can_make(tmp_path, monkeypatch, name):
    monkeypatch.setattr(bounds, "CONSTANT", 2**19)
    (tmp_path / name).write_bytes(GREEDY[name](3000))
    with pytest.raises(CheckpointError, match=r"many times its size in memory|inflate to over 16"):
        read_checkpoint(tmp_path / name)


def test_allowance__of_a_size():
    assert allowance(0) == CONSTANT
    assert allowance(1000) - allowance(0) == 1000 * FACTOR


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GREEDY, *THRIFTY])
def test_peak__as_the_kernel_counts_it(tmp_path, name):
    """In a process of its own that reads a file of so many parts that its memory matters."""
    (tmp_path / name).write_bytes({**GREEDY, **THRIFTY}[name](400_000))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz_weights", "--folder", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    end = json.loads(done.stdout)
    assert end["end"] == "sentence", end
    assert end["grown"] < PEAK * end["size"] + CONSTANT
