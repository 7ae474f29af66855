"""What is tried, and how it may end.

A trial is a function that is called in a process of its own, in an empty folder, and does there
what a user would do: call a command line or a function of the library with something broken. A kind
of fault is a module of this package with

    def trials(count: int, seed: int) -> Iterable[Trial]

which gives `count` of them, the same ones for the same seed, those that matter most first. It may
have `prepare()`, which is called once, before all others, in a process of its own, in the folder
that `shared_folder(kind)` gives to all trials of that kind.

The process that forks the trials has imported torch, detectron2 and detrex and must stay on one
thread: `trials` itself runs no network and starts no thread, `Trial.run` and `prepare` may.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = ("right", "sentence", "traceback", "silent", "hang", "signal")
ALLOWED = {"right": {"right"}, "sentence": {"sentence"}, "either": {"right", "sentence"}}
SHARED = "DETREX_FAULTS_SHARED"
FACTS = "DETREX_FAULTS_FACTS"
MAX_SENTENCE = 600

_SENTENCE = re.compile(r"^(?:detrex|[\w.-]+: error|(?:\w+\.)*\w*(?:Error|Interrupt\w*|Exit)): \S")
_LISTED = re.compile(r"^\d+ mistakes? found$", re.MULTILINE)  # on the output, by `detrex check`
_REMARK = re.compile(
    r"^\s|^$|^\[\d|^usage: |^(?:DEBUG|INFO|WARNING)\b|Warning: |\d+%\|"
    r"|^(?:\[rank\d+\]:)?[IW]\d{4} "  # torch's own log
)


class Wrong(Exception):  # noqa: N818 (a verdict on the result, not an error of the program)
    """Raised by a trial: nothing was said, and the result is not right."""


@dataclass(frozen=True)
class Trial:
    """One thing that is tried.

    Attributes:
        kind: of fault, the name of the module that it is from.
        name: unlike all others of its kind, the same for the same seed.
        run: what is tried. It returns an exit status (anything but an int counts as 0), or raises:
            a `DetrexError` or `SystemExit` ends it as it ends the command line, `Wrong` says
            that the result is not right, and anything else is a traceback.
        expected: "sentence" for status other than 0 and one sentence, "right" for status 0 with
            a result that `run` has looked at, "either" where both are good.
        seconds: after which it hangs.
        memory: bytes of addresses that it may take beyond those of the process that starts it.
    """

    kind: str
    name: str
    run: Callable[[], object]
    expected: str
    seconds: float = 60
    memory: int = 4 << 30

    def __post_init__(self) -> None:
        if self.expected not in ALLOWED:
            raise ValueError(f"expected is {self.expected!r}, one of {', '.join(ALLOWED)} is meant")


@dataclass(frozen=True)
class Ending:
    """How the process of a trial ended: by a status, by a signal, or not in time (`late`)."""

    status: int = 0
    signal: int = 0
    late: bool = False
    stdout: str = ""
    stderr: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a trial.

    Attributes:
        kind: of the trial.
        name: of the trial.
        expected: of the trial.
        outcome: one of `OUTCOMES`.
        why: a line on it.
        seconds: that it took.
        junk: files and processes that it left behind and should not.
        facts: what the trial gave to `note`.
        output: the end of what it printed.
    """

    kind: str
    name: str
    expected: str
    outcome: str
    why: str = ""
    seconds: float = 0.0
    junk: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    output: str = ""

    @property
    def good(self) -> bool:
        return self.outcome in ALLOWED[self.expected]


def classify(expected: str, ending: Ending) -> tuple[str, str]:
    """Give the outcome, and a line on it."""
    if ending.late:
        return "hang", f"not ended after {ending.status} s"
    if ending.signal:
        return "signal", f"signal {ending.signal}"
    for text in (ending.stderr, ending.stdout):
        if "Traceback (most recent call last)" in text:
            return "traceback", "; ".join(filter(None, [ending.wrong, _last_line(text)]))
    if ending.wrong:
        return "silent", ending.wrong
    if ending.status == 0:
        return ("silent", "no sentence") if expected == "sentence" else ("right", "")
    said = sentences(ending.stderr) or _LISTED.findall(ending.stdout)
    if not said:
        return "silent", f"status {ending.status} without a sentence"
    if len(said) > 1:
        return "traceback", f"{len(said)} lines: {' / '.join(said)[:300]}"
    if len(said[0]) > MAX_SENTENCE:
        return "traceback", f"a sentence of {len(said[0])} characters: {said[0][:300]}"
    return "sentence", said[0]


def sentences(stderr: str) -> list[str]:
    """List the lines on an error stream that tell the user what is wrong, each once.

    They begin with a program's or an error's name, or are all that is no log, remark or usage.
    """
    lines = stderr.splitlines()
    first = next((i for i, line in enumerate(lines) if _SENTENCE.search(line)), 0)
    return list(dict.fromkeys(line for line in lines[first:] if not _REMARK.search(line)))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def expect(holds: object, otherwise: str) -> None:
    """Raise `Wrong` where something does not hold."""
    if not holds:
        raise Wrong(otherwise)


def note(**facts: Any) -> None:
    """Keep facts of the trial that runs, plain numbers and strings, in its `Result`."""
    with open(os.environ[FACTS], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(facts) + "\n")


def shared_folder(kind: str) -> Path:
    """Give the folder that all trials of a kind see; what `prepare` wrote is there."""
    return Path(os.environ[SHARED]) / kind
