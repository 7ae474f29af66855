import math

import pytest

from detrex.benchmark.turns import Comparison, compare
from tests.reference.clocked import clocked


def test_compare__alternates_and_leaves_the_warm_up_out():
    costs = {"a": iter([50.0, 1.0, 2.0, 9.0]), "b": iter([70.0, 3.0, 4.0, 5.0])}
    calls, clock, order = clocked(costs)
    seen = compare(calls, repeats=3, warmup=1, clock=clock)
    assert seen.samples == {"a": [1.0, 2.0, 9.0], "b": [3.0, 4.0, 5.0]}
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert (seen.median("a"), seen.minimum("a"), seen.baseline) == (2.0, 1.0, "a")
    assert seen.middle_half("a") == (1.5, 5.5)


def test_compare__keeps_why_a_call_is_left_out():
    def broken():
        raise KeyError("no such layer")

    calls = {"plain": lambda: None, "peer": "not installed", "broken": broken}
    seen = compare(calls, repeats=2, baseline="peer")
    assert list(seen.samples) == ["plain"]
    assert seen.left_out == {"peer": "not installed", "broken": "KeyError: 'no such layer'"}
    assert math.isnan(seen.ratio("plain"))


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warmup": -1}, {"baseline": "b"}])
def test_compare__refuses_what_measures_nothing(wrong):
    with pytest.raises(ValueError, match=r"baseline among \['a'\]; got"):
        compare({"a": lambda: None}, **wrong)


def test_ratio__is_that_of_one_round():
    """A drift of the machine from round to round changes both, and not their ratio."""
    drift = [1.0, 10.0, 2.0, 7.0, 3.0]
    seen = Comparison({"a": drift, "b": [3 * d for d in drift]}, "a")
    assert seen.ratio("b") == pytest.approx(3.0)
    assert seen.ratio("a") == 1.0


def test_ratio__of_different_numbers_of_samples_is_that_of_the_medians():
    seen = Comparison({"a": [2.0, 4.0, 90.0], "b": [1.0]}, "a")
    assert seen.ratio("b") == 0.25
    assert seen.middle_half("b") == (1.0, 1.0)
