import math

import pytest

from detrex.report.html import element
from detrex.report.tables import folded, number, scrolled, table


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((None, "-"), (math.nan, "-"), (0, "0"), (1234567, "1,234,567"), (12.345, "12.3")),
        *((0.0, "0.0"), (0.00012345, "0.0001234"), (2.5e7, "2.5e+07"), (-3.25, "-3.2")),
    ],
)
def test_number__is_short(value, written):
    assert number(value) == written


def test_table__names_rows_and_columns_and_keeps_whole_numbers_for_sorting():
    text = table("what", ["class", "AP"], [("<b>", 12.3456), ("c", None)], sortable=True)
    assert "<caption>what</caption>" in text
    assert '<th scope="row">&lt;b&gt;</th>' in text
    assert '<td class="number" data-value="12.3456">12.3</td>' in text
    assert '<td class="number" data-value="">-</td>' in text
    assert text.count('aria-sort="none"') == 2
    assert '<th scope="col" class="number" aria-sort="none">' in text


def test_table__without_sorting_has_no_buttons():
    assert "button" not in table("what", ["class", "AP"], [("a", 1)])


def test_scrolled__takes_the_keyboard_and_says_what_it_is():
    assert 'tabindex="0"' in scrolled("wide", element("p"))
    assert 'aria-label="wide (box)"' in scrolled("wide", element("p"))


def test_folded__shows_its_line():
    assert folded("more", "x") == "<details><summary>more</summary>x</details>"
