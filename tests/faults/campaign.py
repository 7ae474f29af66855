"""Collect the trials of every kind, run them, and count how they ended."""

import importlib
import importlib.util
import os
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.attempts import attempt, attempt_all
from tests.faults.trials import OUTCOMES, SHARED, Result, Trial, Wrong, shared_folder

SAMPLE = {  # of `make test`: seconds
    **{"configs": 10, "weights_files": 16, "pictures": 10, "annotations": 10},
    **{"shards": 12, "sharded_checkpoints": 8},
    **{"servers": 6, "runs": 2, "ranks": 1, "commands": 6, "kills": 2},
}
FULL = {
    **{"configs": 100, "weights_files": 300, "pictures": 200, "annotations": 200},
    **{"shards": 200, "sharded_checkpoints": 200},
    **{"servers": 200, "runs": 40, "ranks": 40, "commands": 180, "kills": 200},
}
TITLES = {"right": "right", "sentence": "one sentence"}


def has(kind: str) -> bool:
    """Whether there is a module of trials of this kind."""
    return importlib.util.find_spec(f"tests.faults.{kind}") is not None


def trials_of(kind: str, count: int, seed: int) -> Iterator[Trial]:
    """Give the trials of a kind; a mistake in its module is a trial that fails."""
    try:
        module = importlib.import_module(f"tests.faults.{kind}")
        if prepare := getattr(module, "prepare", None):
            prepared = attempt(Trial(kind, "prepare", _inside(kind, prepare), "right", 300))
            if not prepared.good:
                raise Wrong(f"prepare: {prepared.why}\n{prepared.output}")
        yield from module.trials(count, seed)
    except Exception:
        text = traceback.format_exc()
        yield Trial(kind, "trials()", lambda: _fail(text), "right")


def _inside(kind: str, prepare: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        folder = shared_folder(kind)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        return prepare()

    return run


def _fail(text: str) -> None:
    raise RuntimeError(text)


@contextmanager
def shared_folders() -> Iterator[Path]:
    """Make the folder of what `prepare` writes, for the length of a ``with`` block."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    os.environ[SHARED] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_campaign(
    counts: Mapping[str, int],
    seed: int,
    jobs: int,
    only: str = "",
    show: Callable[[str], object] = print,
) -> list[Result]:
    """Run trials kind by kind, with a line for each.

    Args:
        counts: how many of each kind; a kind without a module is left out, with a line.
        seed: of the trials.
        jobs: trials at a time.
        only: run those alone whose name has this in it.
        show: gets the lines.

    Returns:
        The results.
    """
    results: list[Result] = []
    with shared_folders():
        for kind, count in counts.items():
            if not has(kind):
                show(f"{kind}: there are no trials of this kind")
                continue
            chosen = (trial for trial in trials_of(kind, count, seed) if only in trial.name)
            of_kind, said_at = list[Result](), time.monotonic()
            for result in attempt_all(chosen, jobs):
                of_kind.append(result)
                if time.monotonic() - said_at > 60:
                    said_at = time.monotonic()
                    show(f"{kind}: {len(of_kind)} of {count}, {len(failures(of_kind))} failures")
            show(line(kind, of_kind))
            for result in failures(of_kind):
                show(f"  {result.name}: {result.outcome}, not {result.expected}: {said(result)}")
            results += of_kind
    return results


def line(kind: str, results: Sequence[Result]) -> str:
    """Say how the trials of a kind went."""
    counted = Counter(result.outcome for result in results)
    parts = [f"{counted[o]} {TITLES.get(o, o)}" for o in OUTCOMES if counted[o]]
    longest = max((result.seconds for result in results), default=0)
    total = sum(result.seconds for result in results)
    return (
        f"{kind}: {len(results)} tried, {', '.join(parts)} ({total:.0f} s, longest {longest:.1f} s)"
    )


def failures(results: Iterable[Result]) -> list[Result]:
    """Those that ended otherwise than expected, or left something behind."""
    return [result for result in results if not result.good or result.junk]


def said(result: Result) -> str:
    """Give the line on a failure, with what it left behind."""
    left = [f"left {', '.join(result.junk)}"] if result.junk else []
    return " ".join("; ".join([*left, result.why]).split())[:300]


def table(results: Sequence[Result]) -> list[str]:
    """Count outcomes by kind, as a table in Markdown."""
    kinds = list(dict.fromkeys(result.kind for result in results))
    columns = [*(TITLES.get(outcome, outcome) for outcome in OUTCOMES), "junk", "longest (s)"]
    lines = [f"| kind | tried | {' | '.join(columns)} |", "|:--|" + "--:|" * (len(columns) + 1)]
    for kind in [*kinds, "all"]:
        of_kind = [result for result in results if kind in (result.kind, "all")]
        counted = Counter(result.outcome for result in of_kind)
        cells = [len(of_kind), *(counted[outcome] for outcome in OUTCOMES)]
        cells += [sum(len(result.junk) for result in of_kind)]
        longest = max((result.seconds for result in of_kind), default=0.0)
        name = kind.replace("_", " ")
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {longest:.1f} |")
    return lines
