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
    """Read what `write_rows` wrote: the rows and the description."""
    lines = file.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("# ")]
    described = dict(line[2:].split(": ", 1) for line in head)
    return [Row(**row) for row in csv.DictReader(lines[len(head) :])], described
