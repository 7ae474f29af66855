"""The curves of a training run, by matplotlib's Agg canvas, which needs no display."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_LAYER_TERM = re.compile(r"_\d+$")
AP_NAMES = ("AP", "AP50")
"""The figures of an evaluation that are plotted over a run."""


def read_metrics(metrics_json: str | Path) -> list[dict[str, float]]:
    """Read the rows that a training run wrote, one per iteration and in their order.

    Args:
        metrics_json: the ``metrics.json`` in the run's output directory, one JSON object per line.

    Returns:
        The rows by rising ``iteration``; what a resumed run wrote anew replaces the old. A line
        that was cut off while it was written is left out with a warning.
    """
    rows: dict[int, dict[str, float]] = {}
    for number, line in enumerate(Path(metrics_json).read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            logger.warning("%s: line %d is no complete row (%s)", metrics_json, number, error)
            continue
        rows.setdefault(row["iteration"], {}).update(row)
    return [rows[iteration] for iteration in sorted(rows)]


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
