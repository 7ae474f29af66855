"""Tables of the page: readable without a script, sorted by a click with one."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from detrex.report.html import Content, Html, element

NOTHING = "-"


def number(value: Any, digits: int = 1) -> str:
    """Write a figure for people.

    Args:
        value: a number, or None.
        digits: after the point, of what is no whole number.

    Returns:
        The figure, a dash where there is none, four figures that count where it is tiny or huge.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    if value and not 10**-digits <= abs(value) < 1e6:
        return f"{value:.4g}"
    return f"{value:.{digits}f}"


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[Content]],
    *,
    sortable: bool = False,
    digits: int = 1,
) -> Html:
    """Write a table, in a box of its own that scrolls sideways where the window is narrow.

    Args:
        caption: what it shows.
        header: the columns' names; the first column names the rows.
        rows: the cells; numbers are written by `number`.
        sortable: whether a click on a column's name sorts by it.
        digits: of numbers.

    Returns:
        The table.
    """
    rows = list(rows)
    names = [
        element(
            "th",
            element("button", name, type="button") if sortable else name,
            scope="col",
            class_="number" if place and _is_figures(row[place] for row in rows) else None,
            aria_sort="none" if sortable else None,
        )
        for place, name in enumerate(header)
    ]
    body = [element("tr", _cells(row, digits)) for row in rows]
    return scrolled(
        caption,
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", names)),
            element("tbody", body),
            class_="sortable" if sortable else None,
        ),
    )


def scrolled(label: str, content: Html) -> Html:
    """Put something wide into a box that scrolls, by the keyboard too.

    Args:
        label: what is in it.
        content: the element.
    """
    return element(
        "div", content, class_="scroll", role="region", aria_label=f"{label} (box)", tabindex=0
    )


def folded(summary: str, *content: Content) -> Html:
    """Put something long behind a line that opens it.

    Args:
        summary: the line.
        content: what is behind it.
    """
    return element("details", element("summary", summary), content)


def _is_figures(column: Iterable[Content]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in column)


def _cells(row: Sequence[Content], digits: int) -> Iterable[Html]:
    name, *values = row
    yield element("th", name, scope="row")
    for value in values:
        if value is None or isinstance(value, int | float):
            raw = "" if value is None or value != value else repr(value)
            yield element("td", number(value, digits), class_="number", data_value=raw)
        else:
            yield element("td", value)
