import argparse
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from detrex.checkpoint.reading import (
    read_checkpoint,
)
from detrex.errors import CheckpointError


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


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
