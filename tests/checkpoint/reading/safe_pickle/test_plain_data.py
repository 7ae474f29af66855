from collections import OrderedDict
from pickle import UnpicklingError

import numpy as np
import pytest
import torch

from detrex.checkpoint.reading.safe_pickle.plain_data import check_content, check_key, shorten


def nested(depth, empty=list):
    made = empty()
    for _ in range(depth - 1):
        made = [made] if empty is list else {"a": made}
    return made


@pytest.mark.parametrize("empty", [list, dict])
def test_check_content__depth(empty):
    check_content(nested(100, empty), 0)
    with pytest.raises(UnpicklingError, match="more than 100 deep"):
        check_content(nested(101, empty), 0)


def test_check_content__a_shared_part_may_be_deep_in_one_place_only():
    shared = nested(60)
    check_content({"a": shared, "b": [shared, shared]}, 0)
    deeper = shared
    for _ in range(60):
        deeper = [deeper]
    with pytest.raises(UnpicklingError, match="deep"):
        check_content([shared, deeper], 0)


def test_check_content__cycles():
    inside = OrderedDict()
    inside["up"] = [({"x": inside},)]
    with pytest.raises(UnpicklingError, match="contains itself"):
        check_content({"a": inside}, 10**6)


def test_check_content__the_same_many_times():
    level = ["x" * 9]
    for _ in range(5):
        level = [level] * 10
    # 10^5 leaves of 10 and 2, and the lists around them.
    total = 10**5 * 12 + 11111 - 10**5 + 10**5
    check_content(level, total // 10)
    with pytest.raises(UnpicklingError, match="many times the file's size"):
        check_content(level, total // 10 - 20_000)


def test_check_content__an_array_counts_by_its_bytes():
    array = np.zeros(1000)
    check_content([array] * 100, 80_000)
    with pytest.raises(UnpicklingError, match="many times"):
        check_content([array] * 100, 60_000)


def test_check_content__tensors_are_views_and_count_little():
    check_content([torch.zeros(10**6)] * 1000, 0)


@pytest.mark.parametrize("leaf", [object(), print, np.dtype("f4"), Exception])
def test_check_content__no_plain_data(leaf):
    with pytest.raises(UnpicklingError, match="bare or unfinished"):
        check_content({"a": [leaf]}, 100)


@pytest.mark.parametrize(
    "key", ["a", 1, 2.5, None, True, b"x", (1, ("a", None)), torch.float32, np.int64(3)]
)
def test_check_key__plain(key):
    check_key(key)


@pytest.mark.parametrize("key", [[], {}, ((((1,),),),), tuple(range(17)), frozenset(), np.ones(1)])
def test_check_key__slow_or_endless(key):
    with pytest.raises(UnpicklingError, match="key is a"):
        check_key(key)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("os.system", "os.system"),
        ("a\nb", r"a\nb"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 77 + "..."),
        (2**70, str(2**70)),
        ((1, 2), "(1, 2)"),
        ([1], "a list"),
        (([1],), "a tuple"),
    ],
)
def test_shorten__one_short_line(value, shown):
    assert shorten(value) == shown
