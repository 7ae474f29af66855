"""How everything in this folder is measured, kept and summed up.

    results = Results("attention", arguments)
    results.compare("encoder", {"plain": plain, "rows": rows}, baseline="plain")

All calls of a case run in one process on the same input and take turns; every second round goes
through them backwards, so that what slows the machine down for a while slows all. The warm-up is
not counted. Each sample is a row of `benchmarks/results/NAME.csv`, below lines that describe the
machine and the versions, and is all that the summaries, the plots and the page are computed from.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_file import Row, write_rows
from detrex.benchmark.environment import busy_warning, environment
from detrex.benchmark.turns import REPEATS, Call, Comparison, compare
from detrex.threads import available_cores

RESULTS = Path(__file__).resolve().parent / "results"


def fitted_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Give p of the power law value ~ size ** p that fits best, by least squares of logarithms.

    Args:
        sizes: at least two different ones, above 0.
        values: one each, above 0.
    """
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(value) for value in values]
    ).slope


class Results:
    """The results of one script: printed as they come, and kept after each case.

    Args:
        name: of the script, and of its CSV file.
        arguments: what `parser` read: `results`, `threads`, `repeats` and `quick`.
    """

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.file = Path(arguments.results) / f"{name}.csv"
        self.rows: list[Row] = []
        self.environment = environment(arguments.threads, quick=arguments.quick)
        warn_if_busy(self.environment)

    def compare(
        self, case: str, calls: Mapping[str, Call | str], baseline: str | None = None, **how: Any
    ) -> Comparison:
        """Time calls as `compare` does, print a table, and keep the samples."""
        comparison = compare(calls, baseline=baseline, **{"repeats": self.arguments.repeats, **how})
        self.keep(case, comparison)
        return comparison

    def keep(self, case: str, comparison: Comparison) -> None:
        """Print and keep samples that were taken another way."""
        baseline = comparison.baseline
        for name, values in comparison.samples.items():
            self.rows += [
                Row(case, name, baseline, comparison.unit, str(i), f"{v:.7g}")
                for i, v in enumerate(values)
            ]
        for name, why in comparison.left_out.items():
            self.rows.append(Row(case, name, baseline, comparison.unit, note=why))
        print_table(case, comparison)
        write_rows(self.file, self.rows, self.environment)


def warn_if_busy(described: Mapping[str, str]) -> bool:
    """Say so on the error stream, and return True, where others keep the cores busy."""
    if warning := busy_warning(described):
        print(f"warning: {warning}", file=sys.stderr)
    return bool(warning)


def print_table(case: str, comparison: Comparison) -> None:
    """Print a line for each call: median, minimum, the middle half, and the ratio."""
    scale, unit = readable_unit(comparison)
    print(f"\n{case}  [{unit}; ratio to {comparison.baseline}]")
    print(f"  {'':<34} {'median':>10} {'minimum':>10} {'middle half':>23} {'ratio':>7}")
    for name in comparison.samples:
        low, high = (readable(scale * value) for value in comparison.middle_half(name))
        print(
            f"  {name:<34} {readable(scale * comparison.median(name)):>10} "
            f"{readable(scale * comparison.minimum(name)):>10} {low + ' - ' + high:>23} "
            f"{comparison.ratio(name):>7.2f}"
        )
    for name, why in comparison.left_out.items():
        print(f"  {name:<34} {why}")


def readable_unit(comparison: Comparison) -> tuple[float, str]:
    """Choose the unit in which the numbers are readable, and the factor into it."""
    if comparison.unit == "s" and all(max(v) < 1 for v in comparison.samples.values()):
        return 1e3, "ms"
    if comparison.unit == "bytes":
        return 1e-6, "MB"
    return 1.0, comparison.unit


def readable(value: float) -> str:
    """Write a number with four significant digits, or as many as it has before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make the command line that every script has; the description's first line heads its help."""
    made = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    made.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    made.add_argument("--results", default=RESULTS, type=Path, help="folder of the CSV files")
    threads = int(os.environ.get("OMP_NUM_THREADS") or available_cores())
    made.add_argument("--threads", default=threads, type=int, help="of each process")
    made.add_argument("--repeats", default=REPEATS, type=int, help="rounds that count")
    return made


def parse(made: argparse.ArgumentParser, words: Iterable[str] | None) -> argparse.Namespace:
    """Read a command line, and give torch the threads that it asks for."""
    import torch

    arguments = made.parse_args(None if words is None else list(words))
    torch.set_num_threads(arguments.threads)
    return arguments
