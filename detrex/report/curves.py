"""Curves as SVG: lines with a title at each point, and their values as a table below."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detrex.report.html import Html, element
from detrex.report.tables import folded, number, table

_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 32, 12, 34  # half of a label of seven digits at the right
_MOST_POINTS = 150
_MOST_ROWS = 40
_COLOURS = 8
_STEEP = 5
_HUGE = 1e100

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Where values lie along an axis.

    Attributes:
        low: the value at its start.
        high: the value at its end.
        log: whether equal factors take equal room.
        ticks: the values that are named.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Say where a value lies, from 0 to 1."""
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return (value - low) / (high - low)


def chart(
    title: str,
    series: Mapping[str, Points],
    *,
    unit: str = "",
    log: bool = False,
    zero: bool = False,
    digits: int = 4,
    marks: Sequence[float] = (),
) -> Html:
    """Draw curves over a run's iterations.

    Args:
        title: what they show.
        series: by name, ``(iteration, value)`` by rising iteration; values that are not finite, or
            beyond 1e100, are left out, and of many points some are drawn, the first and the last
            among them.
        unit: of the values.
        log: whether to draw values by their logarithm, if all are above 0 and some five times as
            great as others.
        zero: whether the axis begins at 0.
        digits: of the values in the table.
        marks: iterations at which the run was resumed.

    Returns:
        A figure with a legend and a table; empty where there are no values.
    """
    kept = {name: thinned([p for p in of if abs(p[1]) < _HUGE]) for name, of in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return Html("")
    values = [value for points in kept.values() for _, value in points]
    iterations = [iteration for points in kept.values() for iteration, _ in points]
    steep = min(values) > 1 / _HUGE and max(values) > _STEEP * min(values)
    y = axis(values, log=log and steep, zero=zero)
    x = axis(iterations)
    drawn = [_line(i, name, points, x, y) for i, (name, points) in enumerate(kept.items())]
    svg = element(
        "svg",
        _grid(x, y),
        [_mark(x, y, mark) for mark in marks if x.low <= mark <= x.high],
        drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{title}: {', '.join(kept)}; the values are in the table below",
    )
    legend = [
        element("li", element("span", class_=f"key {_style(i)}"), name)
        for i, name in enumerate(kept)
    ]
    heading = f"{title} ({unit})" if unit else title
    return element(
        "figure",
        element("figcaption", heading),
        svg,
        element("ul", legend, class_="legend"),
        folded("values", _values(heading, kept, digits)),
        class_="chart",
    )


def axis(values: Sequence[float], *, log: bool = False, zero: bool = False) -> Axis:
    """Choose an axis on which all values have a place.

    Args:
        values: finite numbers, at least one; above 0 for ``log``.
        log: see `Axis`.
        zero: whether it begins at 0, or below where a value does.

    Returns:
        The axis, with two to eight ticks within it where it is linear.
    """
    low, high = min(values), max(values)
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        last = max(last, first + 1)
        every = 1 if last - first > 2 else 3
        steps = (1.0,) if every == 1 else (1.0, 2.0, 5.0)
        ticks = [s * 10.0**e for e in range(first, last + 1) for s in steps]
        inside = [t for t in ticks if low <= t <= high]
        below = max((t for t in ticks if t <= low), default=ticks[0])
        above = min((t for t in ticks if t >= high and t > below), default=ticks[-1] * 2)
        return Axis(below, above, True, tuple(sorted({below, *inside, above})))
    if zero:
        low = min(low, 0.0)
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    step = _round_step(max((high - low) / 5, 1 / _HUGE))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, False, tuple(i * step for i in range(first, last + 1)))


def thinned(points: Points, most: int = _MOST_POINTS) -> Points:
    """Take so many of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= step * (1 - 1e-9))


def _at(x: Axis, y: Axis, iteration: float, value: float) -> tuple[float, float]:
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return _LEFT + x.place(iteration) * width, _TOP + (1 - y.place(value)) * height


def _line(index: int, name: str, points: Points, x: Axis, y: Axis) -> Html:
    places = [_at(x, y, *point) for point in points]
    dots = [
        element(
            "circle",
            element("title", f"{name}, iteration {number(point[0], 0)}: {number(point[1], 4)}"),
            cx=f"{px:.1f}",
            cy=f"{py:.1f}",
            r=2.2 if len(points) <= _MOST_ROWS else 1.2,
        )
        for point, (px, py) in zip(points, places, strict=True)
    ]
    line = element("polyline", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in places))
    return element("g", line, dots, class_=_style(index))


def _style(index: int) -> str:
    return f"s{index % _COLOURS}{' dashed' if index // _COLOURS % 2 else ''}"


def _grid(x: Axis, y: Axis) -> list[Html]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    drawn = []
    for tick in y.ticks:
        py = _at(x, y, x.low, tick)[1]
        drawn.append(element("line", x1=_LEFT, x2=right, y1=f"{py:.1f}", y2=f"{py:.1f}"))
        drawn.append(element("text", f"{tick:.4g}", x=_LEFT - 6, y=f"{py + 4:.1f}", class_="end"))
    for tick in x.ticks:
        px = _at(x, y, tick, y.low)[0]
        drawn.append(element("text", f"{tick:g}", x=f"{px:.1f}", y=bottom + 17, class_="middle"))
    drawn.append(element("text", "iteration", x=right, y=_HEIGHT - 3, class_="end"))
    return [element("g", drawn, class_="grid")]


def _mark(x: Axis, y: Axis, iteration: float) -> Html:
    px = f"{_at(x, y, iteration, y.low)[0]:.1f}"
    title = element("title", f"resumed at iteration {iteration:g}")
    return element("line", title, class_="mark", x1=px, x2=px, y1=_TOP, y2=_HEIGHT - _BOTTOM)


def _values(title: str, series: Mapping[str, Points], digits: int) -> Html:
    by_iteration: dict[float, dict[str, float]] = {}
    for name, points in series.items():
        for iteration, value in points:
            by_iteration.setdefault(iteration, {})[name] = value
    rows = thinned([(i, 0.0) for i in sorted(by_iteration)], _MOST_ROWS)
    return table(
        title,
        ["iteration", *series],
        [(number(i, 0), *(by_iteration[i].get(name) for name in series)) for i, _ in rows],
        digits=digits,
    )
