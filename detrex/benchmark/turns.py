"""Calls that take turns in one process, so that what slows the machine down slows all of them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
