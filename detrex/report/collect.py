"""All that a run's report tells, from the files in the run's folder."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detrex.checkpoint.download import without_secrets
from detrex.errors import DetrexError, PictureError, RunError
from detrex.report.confusion import Confusion, best_threshold, confusion
from detrex.report.detections import Columns, DataSet, read_data_set, read_detections
from detrex.report.pictures import Drawn, draw, rich_rows
from detrex.report.record import RECORD, Record, misfit, read_record
from detrex.utils.curves import read_metrics

logger = logging.getLogger(__name__)

_HEADLINES = ("AP", "mIoU", "PQ", "AR@100")
_LOG_LINE = re.compile(r"\[(\d\d/\d\d \d\d:\d\d:\d\d)\] (\S+) ([A-Z]+): (.*)")
_MOST_WARNINGS = 100
_MOST_BYTES = 5_000_000  # of pictures in the page


@dataclass
class Log:
    """What ``log.txt`` tells of a run since its first start.

    Attributes:
        warnings: how often each warning and error was logged, in their order.
        environment: detectron2's table of the last start.
    """

    warnings: Counter[str] = field(default_factory=Counter)
    environment: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Run:
    """What is known of a run.

    Attributes:
        folder: the run's.
        record: what it noted of itself; see `detrex.report.record`.
        metrics: the rows of ``metrics.json``.
        log: what was logged.
        config: the resolved config as YAML, or the run's ``config.yaml``; without credentials.
        data: the data set that it was evaluated on.
        found: its detections there.
        confusion: what was taken for what.
        drawn: the worst pictures.
        notes: what is not there, and why, a sentence each.
    """

    folder: Path
    record: Record
    metrics: list[dict[str, float]]
    log: Log
    config: str
    data: DataSet | None = None
    found: Columns | None = None
    confusion: Confusion | None = None
    drawn: list[Drawn] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tasks(self) -> list[str]:
        """Name the tasks that were evaluated, such as ``bbox`` and ``ema/bbox``."""
        keys = {key for row in self.metrics for key in row}
        found = {key.rpartition("/")[0] for key in keys if key.rpartition("/")[2] in _HEADLINES}
        return sorted(found - {""}, key=lambda task: (task.rpartition("/")[2], len(task)))

    def final(self, task: str) -> dict[str, float]:
        """Give the figures of a task's last evaluation by name."""
        head = [f"{task}/{name}" for name in _HEADLINES]
        for row in reversed(self.metrics):
            if any(key in row for key in head):
                start = f"{task}/"
                return {k[len(start) :]: v for k, v in row.items() if k.startswith(start)}
        return {}

    def scores(self, task: str) -> Mapping[str, Any]:
        """Give the evaluator's figures by class and size of a task; empty where none are known."""
        return (self.record.get("scores") or {}).get(task) or {}

    def processes(self) -> list[dict[str, Any]]:
        """Give what each process noted that the run went on in."""
        return self.record.get("processes") or []


def collect(folder: Path, pictures: int = 12) -> Run:
    """Read a run's folder.

    Args:
        folder: with ``metrics.json``.
        pictures: how many of the worst pictures to draw.

    Returns:
        What is known; what cannot be read is among its notes.

    Raises:
        RunError: the folder is not there, or no run has written metrics into it that can be read.
    """
    metrics = folder / "metrics.json"
    if not metrics.is_file():
        raise RunError(
            f"{folder} holds no metrics.json, expected a folder in which a run has trained: name a "
            "train.output_dir"
        )
    rows = read_metrics(metrics)
    record = read_record(folder)
    wrong = misfit(record)
    if wrong:
        logger.warning("%s is left out: %s.", folder / RECORD, wrong)
        record = {}
    config = str(record.get("config") or _text(folder / "config.yaml"))
    run = Run(folder, record, rows, read_log(folder / "log.txt"), without_secrets(config))
    if not record:
        run.notes.append(
            f"{_why_no_record(folder, wrong)}: seconds by part, number of parameters, AR and the "
            "figures by size of each class are not known."
        )
    try:
        _look_at_detections(run, pictures)
    except DetrexError as error:
        run.notes.append(f"Neither confusion nor pictures: {error}")
        logger.warning("%s", run.notes[-1])
    return run


def _why_no_record(folder: Path, wrong: str) -> str:
    if wrong:
        return f"{folder / RECORD} is not as a run leaves it ({wrong})"
    if (folder / RECORD).exists():
        return f"{folder / RECORD} cannot be read"
    return "The run left no report.json, as one with train.report.enabled does"


def read_log(file: Path) -> Log:
    """Read the warnings and the environment of the run that a log ends with.

    Args:
        file: a ``log.txt``; it need not exist.
    """
    log, inside = Log(), False
    if not file.is_file():
        return log
    with file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            line = without_secrets(line.rstrip("\n"))
            found = _LOG_LINE.match(line)
            if found is None:
                name, _, value = line.strip().partition("  ")
                if inside and value.strip("- "):
                    log.environment.append((name, value.strip()))
                continue
            _, _, level, text = found.groups()
            inside = text.startswith("Environment:")
            if inside:
                log.environment = []
            if "Command line:" in text and "resume=False" in text and "eval_only=False" in text:
                log.warnings.clear()
            if level in ("WARNING", "ERROR", "CRITICAL") and (
                text in log.warnings or len(log.warnings) < _MOST_WARNINGS
            ):
                log.warnings[text] += 1
    return log


def _look_at_detections(run: Run, pictures: int) -> None:
    """Read truth and detections of the run's data set, compare them, and draw the worst."""
    about: Mapping[str, Any] = run.record.get("data") or {}
    if not about.get("json_file"):
        if any(task.rpartition("/")[2] in ("bbox", "segm", "keypoints") for task in run.tasks()):
            run.notes.append(
                "Neither confusion nor pictures: the run did not note which annotations it was "
                "evaluated on."
            )
        return
    run.data = read_data_set(about["json_file"])
    if not about.get("results"):
        run.notes.append(
            "Neither confusion nor pictures: the detections were not kept; set "
            "dataloader.evaluator.output_dir='${train.output_dir}'."
        )
        return
    file = Path(about["results"])
    if not file.is_file():  # a folder that was moved
        file = run.folder / file.name
    run.found, rich = read_detections(file, run.data)
    data, found, count = run.data, run.found, len(run.data.images)
    threshold = best_threshold(data.truth, found, count)
    run.confusion = confusion(data.truth, found, count, data.names, threshold)
    worst = run.confusion.worst(pictures)
    rows = rich_rows(file, data, worst) if rich and worst else None
    _draw(run, worst, about, rows)


def _draw(run: Run, worst: Sequence[int], about: Mapping[str, Any], rows: Any) -> None:
    """Draw pictures until they are so many, or fill the page."""
    assert run.data is not None
    assert run.found is not None
    assert run.confusion is not None
    root, value_range = str(about.get("image_root") or ""), about.get("value_range")
    total, unreadable = 0, []
    for place in worst:
        try:
            drawn = draw(
                place,
                run.data,
                run.found,
                run.confusion,
                image_root=root,
                value_range=value_range,
                rich=rows,
            )
        except PictureError as error:
            unreadable.append(str(error))
            continue
        total += len(drawn.truth[0]) + len(drawn.found[0])
        if total > _MOST_BYTES:
            run.notes.append(
                f"Of {len(worst)} pictures the first {len(run.drawn)} are shown: more would make "
                "this page too large."
            )
            break
        run.drawn.append(drawn)
    if unreadable:
        run.notes.append(
            f"{len(unreadable)} of the worst pictures cannot be shown, the first: {unreadable[0]}"
        )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        logger.debug("%s is not shown: %s", file, error)
        return ""
