"""The measurement runs, and both loaders see the same records."""

import pytest

from benchmarks.data_at_any_size import COLUMNS, Index, run


def test_index__ends():
    assert len(list(Index(11))) == 11


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("ranks", [1, 2])
def test_run__measures_every_column(ranks, plain):
    values = run(4000, ranks, plain)
    assert set(values) == set(COLUMNS)
    assert values["start"] > 0
    assert values["resume"] > 0
    assert (values["file"] == 0) is plain
