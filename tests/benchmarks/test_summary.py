import pytest

from benchmarks.results_file import Row
from benchmarks.summary import (
    cases_of,
    exponent,
    faster_peers,
    series_of,
    sized,
    slower_options,
)
from detrex.benchmark.turns import Comparison


def test_cases_of__gathers_samples_and_reasons():
    rows = [
        Row("a", "timm", "timm", "s", "0", "2.0"),
        Row("a", "detrex", "timm", "s", "0", "1.0"),
        Row("b", "timm", "timm", "bytes", "0", "5.0"),
        Row("a", "detrex", "timm", "s", "1", "3.0"),
        Row("a", "peer", "timm", "s", note="not installed"),
    ]
    assert cases_of(rows) == {
        "a": Comparison({"timm": [2.0], "detrex": [1.0, 3.0]}, "timm", {"peer": "not installed"}),
        "b": Comparison({"timm": [5.0]}, "timm", {}, "bytes"),
    }


@pytest.mark.parametrize(
    ("case", "place"),
    [
        ("side (pixels): 1333", ("side (pixels)", 1333)),
        ("R50, 640 x 800", None),
        ("R50: 64px", None),
    ],
)
def test_sized__is_what_ends_in_a_number(case, place):
    assert sized(case) == place


def test_series_of__medians_by_size():
    cases = {
        f"side: {side}": Comparison({"a": [side**2, 1e9, 0.0], "b": [3.0]}, "a")
        for side in (10, 20, 40)
    }
    series = series_of({**cases, "another": Comparison({"a": [1.0]}, "a")})
    assert series == {
        "side": {"a": ([10, 20, 40], [100, 400, 1600]), "b": ([10, 20, 40], [3.0, 3.0, 3.0])}
    }
    assert exponent(*series["side"]["a"]) == "2.00"
    assert exponent([10, 20], [1.0, 2.0]) == ""


def test_faster_peers__at_the_same_precision_alone():
    times = {"timm": 5.0, "OpenVINO": 2.0, "OpenVINO bf16": 1.0, "ONNX Runtime": 2.5}
    ours = {"detrex": 5.0, "detrex compiled": 2.8, "detrex auto": 1.0, "detrex bf16": 0.9}
    samples = {name: [value] for name, value in {**times, **ours}.items()}
    assert faster_peers(Comparison(samples, "timm")) == [
        ("OpenVINO", "detrex compiled", pytest.approx(2.0 / 2.8)),
        ("ONNX Runtime", "detrex compiled", pytest.approx(2.5 / 2.8)),
    ]
    assert faster_peers(Comparison(samples, "timm", unit="pictures/s")) == []
    assert faster_peers(Comparison({"timm": [1.0], "rows": [9.0]}, "timm")) == []


def test_slower_options__are_told():
    samples = {"timm": [9.0], "detrex": [5.0], "detrex bf16": [7.5], "detrex auto": [5.05]}
    assert slower_options(Comparison(samples, "timm")) == [("detrex bf16", 1.5)]
    assert slower_options(Comparison({"timm": [9.0]}, "timm")) == []
