"""Every architecture of timm and torchvision as a backbone of strides 8, 16 and 32, by name.

    python benchmarks/every_architecture.py [--jobs 2] [--library timm] [--only PATTERN] --csv FILE

Each is built on the ``meta`` device and run on an image of 800 x 1333, padded as the backbone
publishes; a line of the CSV says what came out. The last lines count them and name the others.
"""

import argparse
import csv
import fnmatch
from collections import Counter
from pathlib import Path
from typing import Any

from detrex.catalog.rebuild import architectures, survey_all


def main() -> None:
    """Survey, write and count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--library", choices=["timm", "torchvision"])
    parser.add_argument("--only", default="*", help="names to take, such as 'vit_*'")
    parser.add_argument("--csv", type=Path, required=True)
    arguments = parser.parse_args()
    wanted = [
        (name, library)
        for name, library in architectures()
        if fnmatch.fnmatch(name, arguments.only) and arguments.library in (None, library)
    ]
    rows = []
    for row in survey_all(wanted, arguments.jobs):
        rows.append(row)
        mark = "ok" if row["ok"] else f"NOT: {row['reason']}"
        print(f"{len(rows):>5}/{len(wanted)} {row['name']:<48} {row['seconds']:>7} s  {mark}")
    write(rows, arguments.csv)
    count(rows)


def write(rows: list[dict[str, Any]], file: Path) -> None:
    """Write the rows as a CSV file, with every column that one of them has."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def count(rows: list[dict[str, Any]]) -> None:
    """Print how many became a backbone, and the reasons of the others."""
    for library in dict.fromkeys(row["library"] for row in rows):
        of_it = [row for row in rows if row["library"] == library]
        good = sum(row["ok"] for row in of_it)
        kinds = Counter(row.get("kind", "?") for row in of_it)
        print(f"{library}: {good} of {len(of_it)} ({good / len(of_it):.2%}), {dict(kinds)}")
    for row in rows:
        if not row["ok"]:
            print(f"  {row['library']} {row['name']}: {row['reason']}")


if __name__ == "__main__":
    main()
