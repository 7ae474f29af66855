"""Write the page of the docs that says how the trials ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults.campaign import failures, said, table
from tests.faults.trials import ROOT, Result

PAGE: Path = ROOT / "docs" / "faults.md"
PACKAGES = ("python", "torch", "torchvision", "timm", "detectron2")
HEAD = """# What can go wrong

Hostile weights files, broken configs, pictures, annotations and shards, servers of every kind, two
runs in one folder, full disks, dead ranks, and runs that are killed at random moments: each is
tried in a process of its own, and how it ended is counted here. `{command}` tries all of it, in
about 20 minutes on two cores, and writes this page; a few of each kind are part of `make test`.

- **right**: the program did what it should, and the trial has looked at the result.
- **one sentence**: it ended with an exit status other than 0 and one sentence that says what was
  wrong; no file of the user's was harmed.
- **traceback**, **hang** and **signal** (a crash) are faults. So is **silent**: nothing was said,
  and the result was not right.
- **junk**: unfinished files, locks and processes that a trial left behind.
"""


def page(
    results: Sequence[Result],
    described: Mapping[str, str],
    command: str,
    seed: int,
    minutes: float,
) -> str:
    """Compute the page.

    Args:
        results: of all trials.
        described: the machine and the versions, see `benchmarks.environment`.
        command: that made the results.
        seed: of the trials.
        minutes: that they took.

    Returns:
        Its text.
    """
    versions = ", ".join(f"{name} {described[name]}" for name in PACKAGES if name in described)
    lines = [
        HEAD.format(command=command),
        f"`{command}` on {described.get('date', '')}, seed {seed}, {minutes:.0f} minutes on "
        f"{described.get('cores', '?')} cores ({described.get('system', '')}, "
        f"{described.get('processor', 'a processor')}); {versions}.",
        "",
        *table(results),
        "",
        *_kills([result for result in results if result.kind == "kills"]),
        *_failed(failures(results)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _kills(results: Sequence[Result]) -> list[str]:
    """Sum up the facts that the trials of kills have noted."""
    if not results:
        return []
    names = list(dict.fromkeys(name for result in results for name in result.facts))
    sums = {
        name: sum(int(result.facts.get(name, 0)) for result in results)
        for name in names
        if all(isinstance(result.facts.get(name, 0), int | bool) for result in results)
    }
    lines = ["## Runs that were killed", "", "| of all kills | |", "|:--|--:|"]
    return [
        *lines,
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in sums.items()),
        "",
    ]


def _failed(results: Sequence[Result]) -> list[str]:
    if not results:
        return ["Nothing ended otherwise than expected."]
    lines = ["## What ended otherwise than expected", ""]
    for result in results:
        why = said(result).replace("|", "&#124;").replace("<", "&lt;")
        lines.append(f"- {result.kind}, `{result.name}`: {result.outcome}. {why}")
    return lines
