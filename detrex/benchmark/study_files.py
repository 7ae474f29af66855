"""The files of a study: a row for each training run, one for each backbone's costs, the protocol.

`NAME.csv` has the runs, `NAME_costs.csv` the costs, `NAME.json` how both were taken.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from detrex.errors import ConfigError
from detrex.files import write_atomically

NAME = "which_backbone"


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        backbone: name of the architecture.
        weights: what training started from.
        seed: of the weights and of the order of the pictures.
        iterations: optimizer steps.
        ap: box AP of the validation pictures, in percent.
        ap50: AP at an IoU of 0.5, in percent.
    """

    backbone: str
    weights: str
    seed: int
    iterations: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class Cost:
    """What a detector over a backbone costs.

    Attributes:
        backbone: name of the architecture.
        backbone_params: parameters of the backbone.
        params: parameters of the detector.
        gflops: multiply-adds of the detector for one picture, in 1e9.
        latency_ms: of the detector in evaluation for one picture as the study's, in milliseconds.
        optimized_ms: the same after `optimize_for_inference`.
        large_ms: of a large picture, as `latency_ms`.
        large_optimized_ms: of a large picture, as `optimized_ms`.
        step_ms: of one training step, in milliseconds.
    """

    backbone: str
    backbone_params: int
    params: int
    gflops: float
    latency_ms: float
    optimized_ms: float
    large_ms: float
    large_optimized_ms: float
    step_ms: float


Row = TypeVar("Row", Run, Cost)


@dataclass(frozen=True)
class StudyFiles:
    """Where a study's files lie.

    Attributes:
        folder: of all of them.
        name: what their names begin with.
    """

    folder: Path
    name: str = NAME

    @property
    def runs(self) -> Path:
        """The CSV file of `Run`."""
        return self.folder / f"{self.name}.csv"

    @property
    def costs(self) -> Path:
        """The CSV file of `Cost`."""
        return self.folder / f"{self.name}_costs.csv"

    @property
    def protocol(self) -> Path:
        """The JSON file that says how they were measured."""
        return self.folder / f"{self.name}.json"

    @property
    def plot(self) -> Path:
        """The picture."""
        return self.folder / f"{self.name}.svg"

    @property
    def all(self) -> tuple[Path, ...]:
        """All four."""
        return self.runs, self.costs, self.protocol, self.plot


def read_rows(file: Path, kind: type[Row]) -> list[Row]:
    """Read a CSV file of a study.

    Args:
        file: may not be there.
        kind: `Run` or `Cost`.

    Returns:
        Its rows; none where there is no such file.

    Raises:
        ConfigError: it holds something else.
    """
    if not file.is_file():
        return []
    names = [column.name for column in fields(kind)]
    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
    if not rows or rows[0] != names or any(len(row) != len(names) for row in rows):
        raise ConfigError(
            f"{file} is no table with the columns {', '.join(names)}: name another folder for the "
            "study, or remove the file."
        )
    types: list[Any] = [column.type for column in fields(kind)]
    try:
        return [
            kind(*(read(cell) for read, cell in zip(types, row, strict=True))) for row in rows[1:]
        ]
    except ValueError as error:
        raise ConfigError(f"{file} holds a cell that is no number ({error}): mend it.") from error


def write_rows(file: Path, rows: Sequence[Row], kind: type[Row]) -> None:
    """Write a CSV file of a study, all of it at once.

    Args:
        file: where to; its folder is made.
        rows: what to write.
        kind: their class.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in fields(kind))
    writer.writerows(asdict(row).values() for row in rows)
    _write(file, text.getvalue())


def read_protocol(file: Path) -> dict[str, Any]:
    """Read the protocol; empty where there is no such file."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def write_protocol(file: Path, **parts: Any) -> None:
    """Add parts to the protocol, in the place of those of the same name."""
    _write(file, json.dumps(read_protocol(file) | parts, indent=1) + "\n")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda stream: stream.write(text.encode()))
