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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environment import environment, warn_if_busy
from benchmarks.results_file import Row, write_rows
from detrex.threads import available_cores

RESULTS = Path(__file__).resolve().parent / "results"
REPEATS = 7

Call = Callable[[], Any]


@dataclass(frozen=True)
class Comparison:
    """Samples of calls that took turns.

    Attributes:
        samples: by name one value a round, in seconds unless `unit` says another.
        baseline: the name that the ratios are taken to.
        left_out: by name why it was not measured.
        unit: of the samples.
    """

    samples: Mapping[str, Sequence[float]]
    baseline: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    unit: str = "s"

    def median(self, name: str) -> float:
        """Give the median over the rounds."""
        return statistics.median(self.samples[name])

    def minimum(self, name: str) -> float:
        """Give the least value of the rounds."""
        return min(self.samples[name])

    def middle_half(self, name: str) -> tuple[float, float]:
        """Give the first and the third quartile; of one sample, that one twice."""
        values = self.samples[name]
        if len(values) == 1:
            return values[0], values[0]
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return low, high

    def ratio(self, name: str) -> float:
        """Give the median over the rounds of the value over the baseline's in the same round.

        Where the two have different numbers of samples, or no rounds in common, it is the ratio of
        the medians; NaN where the baseline was left out or is 0.
        """
        base, values = self.samples.get(self.baseline, ()), self.samples[name]
        if not base or 0 in base:
            return math.nan
        if len(base) != len(values):
            return statistics.median(values) / statistics.median(base)
        return statistics.median(v / b for v, b in zip(values, base, strict=True))


def compare(
    calls: Mapping[str, Call | str],
    *,
    repeats: int = REPEATS,
    warmup: int = 2,
    baseline: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Let calls take turns and time each.

    Args:
        calls: by name what is timed, or in words why there is nothing to time ("not installed").
            One that fails during the warm-up is left out, too, with its error as the reason.
        repeats: rounds that count, from 1.
        warmup: rounds before them, which do not, from 0: caches fill, compilers compile.
        baseline: the name that ratios are taken to; the first by default.
        clock: gives the time in seconds.

    Returns:
        One sample a call and round.
    """
    names = list(calls)
    baseline = baseline or names[0]
    if repeats < 1 or warmup < 0 or baseline not in calls:
        raise ValueError(
            f"compare takes repeats from 1, warmup from 0 and a baseline among {names}; got "
            f"{repeats}, {warmup} and {baseline!r}."
        )
    left_out = {name: call for name, call in calls.items() if isinstance(call, str)}
    running = {name: call for name, call in calls.items() if not isinstance(call, str)}
    for name, call in list(running.items()):
        try:
            for _ in range(warmup):
                call()
        except Exception as error:  # a peer can fail in any way
            left_out[name] = first_line(error)
            del running[name]
    samples: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(repeats):
        for name in list(running) if turn % 2 == 0 else reversed(running):
            start = clock()
            running[name]()
            samples[name].append(clock() - start)
    return Comparison(samples, baseline, left_out)


def first_line(error: BaseException) -> str:
    """Say what went wrong in one line of at most 120 characters."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:120]


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
