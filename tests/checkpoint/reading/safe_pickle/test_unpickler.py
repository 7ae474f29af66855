import argparse
import io
import json
import pickle
import re
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest

from detrex.checkpoint.reading.bounds import CONSTANT, PEAK
from detrex.checkpoint.reading.safe_pickle import values
from detrex.checkpoint.reading.safe_pickle.unpickler import SafeUnpickler
from detrex.checkpoint.reading.state_dict import read_checkpoint
from detrex.errors import CheckpointError
from tests.reference.crafted_pickles import PICKLES, TENSORS, archive, array, older, pickled, tensor

ROOT = Path(__file__).parents[4]
# In a pickle alone these are harmless, and are only no weights.
HARMLESS = {"memo_index_huge", "memo_index_negative"}


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def load(data):
    stream = io.BytesIO(data)
    content = SafeUnpickler(stream, values.NAMES).load()
    assert stream.tell() == data.index(b".", len(data) - 1) + 1
    return content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "content",
    [
        {"a": [1, -1, 255, 256, 65536, -(2**31), 2**40, -(2**90), True, False, None]},
        [0.1, float("inf"), -0.0, 1e-300, complex(1, -2)],
        [
            "",
            "x",
            "\u00e9\u20ac\U0001f600",
            "line\nline\\u0041",
            "y" * 300,
            b"",
            b"\x00\xff",
            b"z" * 300,
        ],
        {"t": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), (1, "k"): {"n": {}}, 5: []},
        [{1, 2, 3}, frozenset({"a"}), set(), bytearray(b"abc" * 100)],
        OrderedDict(b=1, a=OrderedDict(c=[2])),
        [Counter("abca"), list(range(2000)), {str(i): i for i in range(2000)}],
    ],
)
def test_load__as_the_standard_library(content, protocol):
    got = load(pickle.dumps(content, protocol))
    assert got == content
    assert repr(got) == repr(pickle.loads(pickle.dumps(content, protocol)))


def test_load__parts_that_are_shared_stay_shared():
    shared = [1]
    got = load(pickle.dumps({"a": shared, "b": shared}))
    assert got["a"] is got["b"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"(dp0\nS'a\\x00\\''\np1\nI5\nsS\"b\"\nL7L\ns.", {"a\0'": 5, "b": 7}),
        (b"(lp0\nI01\naI00\naF1.5\na(I1\nI2\ntp1\nag1\na.", [True, False, 1.5, (1, 2), (1, 2)]),
        (b"\x80\x02U\x03a\xe9b.", "a\u00e9b"),
    ],
)
def test_load__as_python_2_wrote_it(data, expected):
    assert load(data) == expected
    assert pickle.loads(data, encoding="latin1") == expected


def test_load__versions_of_modules_stay_with_their_state_dict():
    content = OrderedDict(a=1)
    content._metadata = OrderedDict({"": {"version": 2}})
    got = load(pickle.dumps({"model": content}, 2))
    assert got["model"]._metadata == content._metadata


def _files():
    """Each crafted pickle by itself, in an archive and in an older file of torch's."""
    files = {f"{name}.pkl": pickled(value) for name, value in PICKLES.items()}
    for name, value in {**PICKLES, **TENSORS, "good": tensor()}.items():
        files[f"{name}.pth"] = archive(pickled(value))
        files[f"{name}.older.pth"] = older(pickled(value))
    return {**files, "good.pkl": pickled(array())}


FILES = _files()
GOOD = [name for name in FILES if name.startswith("good.")]


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """How each crafted file ends, all read in a process of their own."""
    folder = tmp_path_factory.mktemp("crafted")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz_weights", "--folder", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    ends = {end["name"]: end for end in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, f"after {list(ends)[-1:]}: {done.stderr[-2000:]}"
    assert ends.keys() == FILES.keys()
    return ends


@pytest.mark.parametrize("name", [name for name in FILES if name not in GOOD])
def test_load__crafted_file_ends_in_one_sentence(ends, name):
    end = ends[name]
    assert end["end"] == "sentence", end
    assert end["seconds"] < 30
    assert end["grown"] < PEAK * end["size"] + CONSTANT
    if name.partition(".")[0] not in HARMLESS:
        reason = r" is truncated or damaged \(.+\): copy| holds .+: (where|save)"
        assert re.search(reason, end["message"])


@pytest.mark.parametrize("name", GOOD)
def test_load__the_crafting_itself_is_right(ends, name):
    assert ends[name]["end"] in ("loaded", "read")


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        (Evil(), "builtins.print"),
        (argparse.Namespace(), "argparse.Namespace|copyreg._reconstructor"),
        ({"a": np.array([Evil()], dtype=object)}, "builtins.print"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_read_checkpoint__pickle_that_needs_code(tmp_path, capsys, content, culprit, protocol):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match=f"holds an object of ({culprit}), which could run"):
        read_checkpoint(tmp_path / "w.pkl")
    assert "ran" not in capsys.readouterr().out
