import argparse
import itertools

import pytest

from benchmarks.protocol import Results, fitted_exponent, parse, parser, readable
from benchmarks.results_file import read_rows
from detrex.benchmark.turns import Comparison
from tests.reference.clocked import clocked


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
    calls, clock, _ = clocked(costs)
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
