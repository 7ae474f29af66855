"""The study's table and plot, and their place on a page of the documentation.

The table stands between two comments of the page, which are all that is written there.
"""

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detrex.benchmark.candidates import CANDIDATES, RANDOM, Candidate
from detrex.benchmark.study_files import Cost, Run, StudyFiles, read_protocol, read_rows
from detrex.benchmark.study_plot import draw
from detrex.errors import ConfigError
from detrex.files import write_atomically

BEGIN, END = "<!-- begin: detrex bench backbones -->", "<!-- end: detrex bench backbones -->"


@dataclass(frozen=True)
class Line:
    """One backbone, with all of its seeds.

    Attributes:
        candidate: the backbone.
        ap: box AP of each seed, in percent.
        ap50: AP50 of each seed, in percent.
        cost: what it costs; None where it was not measured.
        iterations: of each run.
    """

    candidate: Candidate
    ap: tuple[float, ...]
    ap50: tuple[float, ...]
    cost: Cost | None
    iterations: int

    @property
    def mean_ap(self) -> float:
        """The mean of the seeds' AP."""
        return statistics.fmean(self.ap)


def lines_of(runs: Sequence[Run], costs: Sequence[Cost]) -> list[Line]:
    """Put together what belongs to one backbone.

    Args:
        runs: of all backbones and seeds.
        costs: of the backbones.

    Returns:
        The best mean AP first.
    """
    kinds = {candidate.name: candidate.kind for candidate in CANDIDATES}
    by_name = {cost.backbone: cost for cost in costs}
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.backbone, run.weights), []).append(run)
    lines = [
        Line(
            Candidate(name, kinds.get(name, ""), weights),
            tuple(run.ap for run in group),
            tuple(run.ap50 for run in group),
            by_name.get(name),
            group[0].iterations,
        )
        for (name, weights), group in groups.items()
    ]
    return sorted(lines, key=lambda line: -line.mean_ap)


def table(lines: Sequence[Line]) -> str:
    """Write the table in Markdown.

    Args:
        lines: from `lines_of`.

    Returns:
        A heading and one row for each line.
    """
    heads = (
        *("backbone", "kind", "seeds", "AP: mean (min to max)", "AP50"),
        *("parameters, of all", "GFLOPs", "ms", "optimized", "at 640", "optimized"),
        *("s per 100 steps", "training s"),
    )
    rows = ["| " + " | ".join(heads) + " |", "|:--|:--|" + "--:|" * (len(heads) - 2)]
    return "\n".join([*rows, *("| " + " | ".join(_cells(line)) + " |" for line in lines)])


def _cells(line: Line) -> list[str]:
    cells = [line.candidate.title, line.candidate.kind, str(len(line.ap))]
    cells += [_spread(line.ap), _spread(line.ap50)]
    cost = line.cost
    if cost is None:
        return cells + ["not measured"] * 8
    return [
        *cells,
        f"{cost.backbone_params / 1e6:.2f} M, {cost.params / 1e6:.2f} M",
        f"{cost.gflops:.3f}",
        *(f"{value:.1f}" for value in (cost.latency_ms, cost.optimized_ms)),
        *(f"{value:.0f}" for value in (cost.large_ms, cost.large_optimized_ms)),
        f"{cost.step_ms / 10:.1f}",
        f"{cost.step_ms * line.iterations / 1e3:.0f}",
    ]


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else mean


def summary(lines: Sequence[Line]) -> str:
    """Say how far seeds differ, beside how far backbones do.

    Args:
        lines: from `lines_of`.

    Returns:
        Sentences; none where there are no two backbones.
    """
    random = [line for line in lines if line.candidate.weights == RANDOM]
    spreads = [max(line.ap) - min(line.ap) for line in random if len(line.ap) > 1]
    if len(random) < 2:
        return ""
    if not spreads:
        return (
            "One seed of each: how far seeds differ is not known, so that a few AP between two "
            "backbones say nothing."
        )
    return (
        f"Of the {len(random)} backbones with random weights, the mean AP reaches from "
        f"{random[-1].mean_ap:.1f} to {random[0].mean_ap:.1f}; the seeds of one differ by "
        f"{statistics.median(spreads):.1f} AP (median), at most by {max(spreads):.1f}. "
        "A difference of that size between two backbones says nothing."
    )


def conditions(protocol: Mapping[str, Mapping[str, object]]) -> str:
    """Say where the costs were measured; empty where they were not.

    Args:
        protocol: from `read_protocol`.

    Returns:
        A sentence.
    """
    found = protocol.get("costs", {}).get("environment")
    if not isinstance(found, Mapping):
        return ""
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "timm") if name in found)
    busy = found.get("busy", "an unknown share")
    return (
        f"Times: one thread of {found.get('processor', 'a processor')}, of whose cores other "
        f"programs used {busy}; {versions}."
    )


def write_page(files: StudyFiles, page: Path | None = None) -> str:
    """Draw the plot, and write the table between the page's marks.

    Args:
        files: of the study.
        page: a Markdown file with `BEGIN` and `END`, which gets the study's files beside it under
            its own name; None for the plot alone.

    Returns:
        What stands between the marks.

    Raises:
        ConfigError: there are no runs, or the page has no marks.
    """
    lines = lines_of(read_rows(files.runs, Run), read_rows(files.costs, Cost))
    if not lines:
        raise ConfigError(f"{files.runs} has no runs: `detrex bench backbones` trains them.")
    draw(lines, files.plot)
    protocol = read_protocol(files.protocol)
    parts = [table(lines), summary(lines), conditions(protocol)]
    text = "\n\n".join(part for part in parts if part)
    if page is not None:
        _put(page, text)
        for mine, beside in zip(files.all, StudyFiles(page.parent, page.stem).all, strict=True):
            if mine.is_file() and mine.resolve() != beside.resolve():
                shutil.copyfile(mine, beside)
    return text


def around_table(page: Path) -> tuple[str, str]:
    """Read what stands before and behind the table of a page.

    Args:
        page: see `write_page`.

    Raises:
        ConfigError: the page has no marks.
    """
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    if (
        before.count(BEGIN) != 1
        or before.count(END) != 1
        or before.index(BEGIN) > before.index(END)
    ):
        raise ConfigError(
            f"{page} has no place for the table: write the lines {BEGIN} and {END} where it is to "
            "stand."
        )
    head, rest = before.split(BEGIN)
    return head, rest.split(END)[1]


def _put(page: Path, text: str) -> None:
    head, after = around_table(page)
    new = f"{head}{BEGIN}\n\n{text}\n\n{END}{after}"
    write_atomically(page, lambda stream: stream.write(new.encode()))
