import math
import re
from xml.etree import ElementTree

import pytest

from detrex.report.curves import axis, chart, thinned


@pytest.mark.parametrize(
    "values",
    [[0.0], [5.0], [-3.0], [1, 2, 3], [0.1, 1e6], [-1e-9, 1e-9], [99.999, 100], [0, 7, 13.7]],
)
@pytest.mark.parametrize("zero", [False, True])
def test_axis__holds_all_values_between_round_ticks(values, zero):
    made = axis(values, zero=zero)
    assert 2 <= len(made.ticks) <= 8
    assert (made.ticks[0], made.ticks[-1]) == (made.low, made.high)
    assert all(-1e-9 <= made.place(value) <= 1 + 1e-9 for value in values)
    if zero:
        assert made.low <= 0


@pytest.mark.parametrize("values", [[1.0], [0.02, 0.9], [1e-5, 3e4], [7, 8], [10, 100]])
def test_axis__logarithmic_gives_equal_factors_equal_room(values):
    made = axis(values, log=True)
    assert made.low <= min(values) <= max(values) <= made.high
    assert made.low in made.ticks
    middle = math.sqrt(made.low * made.high)
    assert made.place(middle) == pytest.approx(0.5)
    assert len(made.ticks) <= 12


def test_thinned__keeps_first_and_last_and_their_order():
    points = [(i, -i) for i in range(1001)]
    some = thinned(points, 7)
    assert len(some) == 7
    assert some[0] == points[0]
    assert some[-1] == points[-1]
    assert some == sorted(some)
    assert thinned(points[:7], 7) == points[:7]


def test_chart__is_well_formed_and_has_each_value_twice_without_a_script():
    text = chart("los<s", {"a<b": [(0, 2.5), (10, 1.25)], "c": [(10, 0.5)]}, marks=[5])
    root = ElementTree.fromstring(text)
    titles = [node.text for node in root.iter("title")]
    assert "a<b, iteration 10: 1.2500" in titles
    assert "resumed at iteration 5" in titles
    cells = [node.get("data-value") for node in root.iter("td")]
    assert cells == ["2.5", "", "1.25", "0.5"]
    assert root.find("figcaption").text == "los<s"


def test_chart__higher_is_further_up():
    text = chart("x", {"a": [(0, 1.0), (1, 3.0), (2, 2.0)]})
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', text)]
    assert heights[1] < heights[2] < heights[0]


def test_chart__of_nothing_finite_is_empty():
    assert chart("x", {"a": [(0, math.nan)], "b": []}) == ""


def test_chart__of_many_points_stays_small():
    series = {f"term {k}": [(i, i + 1.0) for i in range(20_000)] for k in range(10)}
    assert len(chart("x", series, log=True)) < 400_000
