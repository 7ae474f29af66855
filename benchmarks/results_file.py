"""CSV files of raw samples, below comment lines that describe where they were taken."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One sample, or what stands in for samples that there are none of.

    Attributes:
        case: what was measured, such as a network with its input's size.
        name: who was measured.
        baseline: the name in the same case that ratios are taken to.
        unit: of the value.
        round: counts the samples from 0; empty where there is none.
        value: the sample; empty where there is none.
        note: why there is no sample, or nothing.
    """

    case: str
    name: str
    baseline: str
    unit: str
    round: str = ""
    value: str = ""
    note: str = ""


def write_rows(file: Path, rows: Iterable[Row], described: Mapping[str, str]) -> None:
    """Write a CSV file, and its folder; the description comes first, as lines ``# name: value``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        stream.writelines(f"# {name}: {value}\n" for name, value in described.items())
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


def read_rows(file: Path) -> tuple[list[Row], dict[str, str]]:
    """Read what `write_rows` wrote: the rows and the description.

    Raises:
        ValueError: if the file has other columns.
    """
    lines, described = _parts(file)
    if not holds_rows(file):
        raise ValueError(f"{file.name} has other columns than those of Row.")
    return [Row(**row) for row in csv.DictReader(lines)], described


def holds_rows(file: Path) -> bool:
    """Whether a CSV file has the columns that `read_rows` takes."""
    return _parts(file)[0][:1] == [",".join(field.name for field in fields(Row))]


def read_table(file: Path) -> list[list[str]]:
    """Read a CSV file with columns of its own, its heading first."""
    return list(csv.reader(_parts(file)[0]))


def _parts(file: Path) -> tuple[list[str], dict[str, str]]:
    """Give the lines below the comments, and the comments' pairs."""
    lines = file.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("# ")]
    return lines[len(head) :], dict(line[2:].split(": ", 1) for line in head)
