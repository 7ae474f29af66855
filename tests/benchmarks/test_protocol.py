import argparse
import itertools
import math

import pytest

from benchmarks.protocol import (
    Comparison,
    Results,
    compare,
    fitted_exponent,
    parse,
    parser,
    readable,
)
from benchmarks.results_file import read_rows


def _clocked(costs):
    """Calls that each let a clock go on by what they cost, which may differ from call to call."""
    now, order = [0.0], []

    def call(name):
        order.append(name)
        now[0] += next(costs[name])

    calls = {name: lambda name=name: call(name) for name in costs}
    return calls, (lambda: now[0]), order


def test_compare__alternates_and_leaves_the_warm_up_out():
    costs = {"a": iter([50.0, 1.0, 2.0, 9.0]), "b": iter([70.0, 3.0, 4.0, 5.0])}
    calls, clock, order = _clocked(costs)
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


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_fitted_exponent__of_a_power_law(power):
    sizes = [320, 480, 800, 1333]
    noise = [1.01, 0.99, 0.99, 1.01]
    values = [n * 3e-6 * size**power for size, n in zip(sizes, noise, strict=True)]
    assert fitted_exponent(sizes, values) == pytest.approx(power, abs=0.02)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"),
        (1.0, "1.000"),
        (12.3456, "12.35"),
        (3_600_000.4, "3,600,000"),
        (0, "0"),
    ],
)
def test_readable__four_digits(value, text):
    assert readable(value) == text


def test_results__keeps_every_sample(tmp_path, capsys):
    arguments = parse(parser("A title.\n\nMore."), ["--quick", "--results", str(tmp_path)])
    results = Results("attention", argparse.Namespace(**{**vars(arguments), "repeats": 3}))
    costs = {"plain": itertools.repeat(0.1), "rows": itertools.repeat(0.025)}
    calls, clock, _ = _clocked(costs)
    results.compare("encoder, batch 2", {**calls, "mmcv": "not installed"}, clock=clock)
    results.keep("memory", Comparison({"plain": [5e6]}, "plain", unit="bytes"))
    rows, described = read_rows(tmp_path / "attention.csv")
    assert rows == results.rows
    assert described == results.environment
    assert described["length"] == "short"
    assert [(r.name, r.round, r.note) for r in rows[5:]] == [
        ("rows", "2", ""),
        ("mmcv", "", "not installed"),
        ("plain", "0", ""),
    ]
    printed = capsys.readouterr().out
    assert "encoder, batch 2  [ms; ratio to plain]" in printed
    assert " 0.25\n" in printed
    assert "not installed" in printed
