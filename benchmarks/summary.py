"""From rows of samples to comparisons, and to series over a size."""

import re
from collections.abc import Iterable, Mapping

from benchmarks.protocol import fitted_exponent
from benchmarks.results_file import Row
from detrex.benchmark.turns import Comparison

Cases = Mapping[str, Comparison]
Series = dict[str, tuple[list[float], list[float]]]

PEERS = ("detectron2", "timm", "torchvision", "transformers", "ONNX Runtime", "OpenVINO")
OURS = "detrex"
NO_UNIT = "1"
ALIKE = 0.02
"""Share by which two equal calls may differ: less is told as no difference."""

_SIZED = re.compile(r"^(?P<what>.+): (?P<size>\d+)$")


def cases_of(rows: Iterable[Row]) -> dict[str, Comparison]:
    """Gather rows into one comparison for each case, in the order of the rows."""
    gathered: dict[str, tuple[dict[str, list[float]], str, dict[str, str], str]] = {}
    for row in rows:
        samples, _, left_out, _ = gathered.setdefault(row.case, ({}, row.baseline, {}, row.unit))
        if row.value:
            samples.setdefault(row.name, []).append(float(row.value))
        else:
            left_out[row.name] = row.note
    return {case: Comparison(*parts) for case, parts in gathered.items()}


def sized(case: str) -> tuple[str, int] | None:
    """Split the name of a case that belongs to a series, ``"WHAT: SIZE"``; None for any other."""
    match = _SIZED.match(case)
    return (match["what"], int(match["size"])) if match else None


def series_of(cases: Cases) -> dict[str, Series]:
    """Gather the cases of series.

    Returns:
        By what the size is of, and by the name of who was measured, the sizes and the medians.
    """
    found: dict[str, Series] = {}
    for case, comparison in cases.items():
        if place := sized(case):
            for name in comparison.samples:
                sizes, medians = found.setdefault(place[0], {}).setdefault(name, ([], []))
                sizes.append(place[1])
                medians.append(comparison.median(name))
    return found


def exponent(sizes: list[float], medians: list[float]) -> str:
    """Write the fitted exponent of a series; nothing where there are fewer than three sizes."""
    return f"{fitted_exponent(sizes, medians):.2f}" if len(set(sizes)) > 2 else ""


def faster_peers(comparison: Comparison) -> list[tuple[str, str, float]]:
    """List the peers that take less time than the fastest of this package at the same precision.

    Returns:
        The peer, who it is faster than, and its time over that one's, fastest first.
    """
    found = []
    for bf16 in (False, True):
        names = [name for name in comparison.samples if ("bf16" in name) == bf16]
        names = [name for name in names if not name.endswith("auto")]  # of either precision
        ours = [name for name in names if name.startswith(OURS)]
        if comparison.unit != "s" or not ours:
            continue
        best = min(ours, key=comparison.median)
        for peer in names:
            share = comparison.median(peer) / comparison.median(best)
            if peer.startswith(PEERS) and share < 1 - ALIKE:
                found.append((peer, best, share))
    return sorted(found, key=lambda row: row[2])


def slower_options(comparison: Comparison) -> list[tuple[str, float]]:
    """List what this package offers by name that takes more time than its plain network.

    Returns:
        The name, and its time over the plain network's.
    """
    if comparison.unit != "s" or OURS not in comparison.samples:
        return []
    plain = comparison.median(OURS)
    shares = {name: comparison.median(name) / plain for name in comparison.samples}
    return [(n, share) for n, share in shares.items() if n.startswith(OURS) and share > 1 + ALIKE]
