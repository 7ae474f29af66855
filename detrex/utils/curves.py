"""The curves of a training run, by matplotlib's Agg canvas, which needs no display."""

import json
import logging
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detrex.errors import RunError, first_line

logger = logging.getLogger(__name__)

_MOST = 1 << 53  # larger whole numbers are no floats
_LAYER_TERM = re.compile(r"_\d+$")
AP_NAMES = ("AP", "AP50")
"""The figures of an evaluation that are plotted over a run."""


def read_metrics(metrics_json: str | Path) -> list[dict[str, float]]:
    """Read the rows that a training run wrote, one per iteration and in their order.

    Args:
        metrics_json: the ``metrics.json`` in the run's output directory, one JSON object per line.

    Returns:
        The rows by rising ``iteration``; what a resumed run wrote anew replaces the old. A last
        line that was cut off while it was written, also the only one, is left out with a warning.

    Raises:
        RunError: the file cannot be read, or another line is no row of numbers.
    """
    try:
        lines = Path(metrics_json).read_bytes().rstrip().split(b"\n")
    except OSError as error:
        raise RunError(f"{metrics_json} cannot be read: {error.strerror or error}") from error
    rows: dict[int, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and (rows or line.startswith(b"{")):
                logger.warning(
                    "%s: line %d, the last, is no complete row (%s) and is left out",
                    *(metrics_json, number, first_line(error)),
                )
                break
            row, wrong = {}, f"is no JSON ({first_line(error)})"
        else:
            wrong = _wrong_with(row)
        if wrong:
            raise RunError(
                f"{metrics_json} cannot be read: line {number} {wrong}, expected a JSON object of "
                "numbers with an iteration: mend the line, or take it out"
            )
        rows.setdefault(row["iteration"], {}).update(row)
    return [rows[iteration] for iteration in sorted(rows)]


def _wrong_with(row: Any) -> str:
    """Say what makes a line of JSON no row of metrics; empty if nothing."""
    if not isinstance(row, dict):
        return f"is {reprlib.repr(row)}"
    if "iteration" not in row:
        return "has no iteration"
    for name, value in row.items():
        kinds = (int,) if name == "iteration" else (int, float)
        if type(value) not in kinds or (type(value) is int and abs(value) > _MOST):
            return f"has {reprlib.repr(value)} for {reprlib.repr(name)}"
    return ""


def plot_losses(metrics: Sequence[Mapping[str, float]], png: str | Path, title: str = "") -> Path:
    """Plot the total loss, and the terms of the last layer, the encoder and the denoising queries.

    Args:
        metrics: rows of `read_metrics`.
        png: the file to write.
        title: over the plot.

    Returns:
        The path written.

    Raises:
        ValueError: when no row holds a loss.
    """
    names = sorted({k for row in metrics for k in row if k == "total_loss" or is_own_term(k)})
    names.sort(key=lambda name: name != "total_loss")
    return _plot(
        metrics, names, png, title, "loss (logarithmic)", lambda axes: axes.set_yscale("log")
    )


def plot_ap(metrics: Sequence[Mapping[str, float]], png: str | Path, title: str = "") -> Path:
    """Plot every AP and AP50 that the run's evaluations gave, in percent; as `plot_losses`.

    Raises:
        ValueError: when no row holds an AP.
    """
    names = sorted({k for row in metrics for k in row if k.rpartition("/")[2] in AP_NAMES})
    return _plot(metrics, names, png, title, "percent", lambda axes: axes.set_ylim(bottom=0))


def _plot(
    metrics: Sequence[Mapping[str, float]],
    names: Sequence[str],
    png: str | Path,
    title: str,
    unit: str,
    scale: Callable[[Axes], object],
) -> Path:
    """Draw one line per name over the iterations, and write it as PNG."""
    if not names:
        raise ValueError(
            f"There is nothing to plot in {png}: none of the {len(metrics)} rows of metrics holds "
            "such a value; train for more than train.log_period iterations and evaluate once."
        )
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes: Axes = figure.subplots()
    for name in names:
        points = [(row["iteration"], row[name]) for row in metrics if name in row]
        emphasis = 2.5 if name == "total_loss" else 1.2
        axes.plot(
            *zip(*points, strict=True), label=name, linewidth=emphasis, marker=".", markersize=4
        )
    scale(axes)
    axes.set(title=title, xlabel="iteration", ylabel=unit)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    png = Path(png)
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png)
    return png


def is_own_term(name: str) -> bool:
    """Tell whether a value is a term of the loss, and none of a layer before the last."""
    return name.startswith("loss_") and _LAYER_TERM.search(name) is None
