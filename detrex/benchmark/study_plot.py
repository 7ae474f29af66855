"""The study's picture: AP against latency, a mark for each backbone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter, NullFormatter

from detrex.benchmark.candidates import KINDS, RANDOM
from detrex.files import write_atomically

# Each mark and letter has to be read on white and on a dark page: middle tones, no background.
_MARKS: Mapping[str, tuple[str, str]] = {
    KINDS[0]: ("o", "#3b82c4"),
    KINDS[1]: ("s", "#d9730d"),
    KINDS[2]: ("D", "#2f9e6e"),
    KINDS[3]: ("^", "#b8579b"),
    "": ("v", "#808890"),
}
_INK = "#797d83"
_LETTER, _GAP = 4.9, 9  # points: width of a letter of a name, and between it and its mark
_SMALLEST, _LARGEST = 40.0, 420.0  # square points


def draw(lines: Sequence[Any], file: Path) -> bool:
    """Draw mean AP and the range of the seeds over the latency of the optimized detector.

    Args:
        lines: of `detrex.benchmark.study_page.Line`.
        file: an SVG.

    Returns:
        Whether there was something to draw: lines with costs.
    """
    drawn = [line for line in lines if line.cost is not None]
    if not drawn:
        return False
    look: Any = {"svg.fonttype": "none", "svg.hashsalt": "detrex", "font.family": "sans-serif"}
    with rc_context(look):
        figure = Figure(figsize=(9, 6.2), dpi=72, layout="constrained")  # a pixel is a point
        axes: Axes = figure.subplots()
        _marks(axes, drawn)
        _frame(axes, drawn)
        _names(axes, drawn)
        write_atomically(
            file,
            lambda stream: figure.savefig(
                stream, format="svg", transparent=True, metadata={"Date": None}
            ),
        )
    return True


def _marks(axes: Axes, lines: Sequence[Any]) -> None:
    most = max(line.cost.params for line in lines)
    shown = set()
    for line in lines:
        kind = line.candidate.kind
        mark, colour = _MARKS.get(kind, _MARKS[""])
        x, y = line.cost.optimized_ms, line.mean_ap
        below, above = y - min(line.ap), max(line.ap) - y
        axes.errorbar(x, y, [[below], [above]], ecolor=colour, alpha=0.6, elinewidth=1.2)
        size = _SMALLEST + (_LARGEST - _SMALLEST) * line.cost.params / most
        is_random = line.candidate.weights == RANDOM
        face = colour if is_random else "none"
        axes.scatter(x, y, s=size, marker=mark, facecolors=face, edgecolors=colour, linewidths=1.6)
        if kind and kind not in shown:
            axes.scatter([], [], s=60, marker=mark, color=colour, label=kind)
            shown.add(kind)
    if any(line.candidate.weights != RANDOM for line in lines):
        label = "not filled: from ImageNet weights"
        axes.scatter([], [], s=60, marker="o", facecolors="none", edgecolors=_INK, label=label)


def _names(axes: Axes, lines: Sequence[Any]) -> None:
    """Write each name beside its mark, where it covers the fewest others."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # axes find their place
    places = [axes.transData.transform((line.cost.optimized_ms, line.mean_ap)) for line in lines]
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in places]
    for line, (x, y) in zip(lines, places, strict=True):
        width = _LETTER * len(line.candidate.name)
        choices = [(_GAP, 5), (_GAP, -12), (-_GAP - width, 5), (-_GAP - width, -12), (_GAP, -22)]
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + 9) for dx, dy in choices]
        costs = [sum(_is_over(box, other) for other in taken) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        axes.annotate(
            line.candidate.name,
            (line.cost.optimized_ms, line.mean_ap),
            choices[best],
            textcoords="offset points",
            fontsize=8.5,
            color=_INK,
        )


def _is_over(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(first[low] < second[low + 2] and second[low] < first[low + 2] for low in (0, 1))


def _frame(axes: Axes, lines: Sequence[Any]) -> None:
    axes.set_xscale("log")
    values = [line.cost.optimized_ms for line in lines]
    axes.set_xlim(min(values) / 1.15, max(values) * 1.5)
    ticks = [t for t in _ticks() if min(values) / 1.15 <= t <= max(values) * 1.5]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=max(0, math.floor(min(min(line.ap) for line in lines)) - 2))
    axes.set_xlabel("milliseconds for one picture, after optimize_for_inference", color=_INK)
    axes.set_ylabel("box AP: mean, and range of the seeds", color=_INK)
    axes.tick_params(which="both", colors=_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.grid(alpha=0.25, color=_INK)
    if not axes.get_legend_handles_labels()[0]:  # of names whose kind nobody has said
        return
    legend = axes.legend(fontsize=9, labelcolor=_INK, framealpha=0, loc="best")
    legend.set_title("larger mark: more parameters", prop=FontProperties(size=9))
    legend.get_title().set_color(_INK)


def _ticks() -> list[float]:
    return [step * 10**power for power in range(-1, 5) for step in (1, 1.5, 2, 3, 5, 7)]
