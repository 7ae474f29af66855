"""Plots of results: bars of ratios, and lines over a size on logarithmic axes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from benchmarks.protocol import readable, readable_unit
from benchmarks.summary import NO_UNIT, OURS, Cases, Series, exponent, series_of, sized
from detrex.benchmark.turns import Comparison

_OURS, _OTHERS, _LINES = "#1f6fb4", "#9a9a9a", "osD^vP"
_WIDTH, _BAR = 8.0, 0.27  # inches


def plot(title: str, cases: Cases, file: Path) -> bool:
    """Draw what a script found; write no file and return False where there is nothing to draw."""
    series = series_of(cases)
    bars = {
        case: comparison
        for case, comparison in cases.items()
        if not sized(case) and comparison.unit != NO_UNIT and _ratios(comparison)
    }
    if not series and not bars:
        return False
    figure = _lines(series, cases) if series else _bars(bars)
    figure.suptitle(title, fontsize=12)
    figure.savefig(file, dpi=110)
    return True


def _ratios(comparison: Comparison) -> dict[str, float]:
    if len(comparison.samples) < 2:
        return {}
    found = {name: comparison.ratio(name) for name in comparison.samples}
    return {name: ratio for name, ratio in found.items() if math.isfinite(ratio)}


def _bars(cases: Cases) -> Figure:
    """One bar for each name, below a line that names the case and its baseline."""
    bars: list[tuple[float, str, float, str, str]] = []  # place, name, ratio, median, color
    headings: list[tuple[float, str]] = []
    place = 0.0
    for case, comparison in cases.items():
        headings.append((place, f"{case}  (1 is {comparison.baseline})"))
        scale, unit = readable_unit(comparison)
        with_ours = any(name.startswith(OURS) for name in comparison.samples)
        for name, ratio in _ratios(comparison).items():
            place += 1.0
            median = f"{readable(scale * comparison.median(name))} {unit}"
            own = name.startswith(OURS) or not (with_ours or name == comparison.baseline)
            bars.append((place, name, ratio, median, _OURS if own else _OTHERS))
        place += 1.7
    figure = Figure(figsize=(_WIDTH, 1.1 + _BAR * place), layout="constrained")
    axes = figure.add_subplot()
    places, names, ratios, _, colors = zip(*bars, strict=True)
    axes.barh(places, ratios, height=0.75, color=colors)
    axes.axvline(1.0, color="black", linewidth=0.8, zorder=0)
    for y, _, ratio, median, _ in bars:
        _write(axes, f"{ratio:.2f}  ({median})", ratio, y)
    for y, text in headings:
        _write(axes, text, 0, y, fontweight="bold")
    axes.set_yticks(places, names, fontsize=9)
    axes.set_ylim(place - 0.9, -0.8)
    axes.set_xlim(0, 1.4 * max(1.0, *ratios))
    better = "more" if all(c.unit.endswith("/s") for c in cases.values()) else "less"
    axes.set_xlabel(f"ratio to the baseline ({better} is better), and the median")
    return figure


def _write(axes: Axes, text: str, x: float, y: float, **how: Any) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    place = {"textcoords": "offset points", "va": "center"}
    axes.annotate(text, (x, y), (5, 0), fontsize=9, zorder=3, bbox=box, **place, **how)


def _lines(series: Mapping[str, Series], cases: Cases) -> Figure:
    """One panel for each size that was changed."""
    columns = min(2, len(series))
    rows = math.ceil(len(series) / columns)
    figure = Figure(figsize=(_WIDTH, 0.6 + 4.2 * rows), layout="constrained")
    unit = next(c.unit for case, c in cases.items() if sized(case))
    for index, (what, names) in enumerate(series.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for marker, (name, (sizes, medians)) in zip(_LINES * 3, names.items(), strict=False):
            power = exponent(sizes, medians)
            label = f"{name}, exponent {power}" if power else name
            axes.plot(sizes, medians, marker=marker, markersize=4, linewidth=1.2, label=label)
        _logarithmic(axes, sorted({size for sizes, _ in names.values() for size in sizes}))
        axes.set_xlabel(what)
        axes.set_ylabel(f"median ({unit})")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def _logarithmic(axes: Axes, sizes: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.grid(alpha=0.3)
