"""Try to export one small network of each family of the catalogue, and write what exports.

    python benchmarks/export_table.py --families 60 [--jobs 14] [--limit 200] [--output FILE]

A family is a file of timm's or torchvision's models; of each the architecture with the fewest
multiply-adds is taken, with random weights, strides 8, 16 and 32, and any height and width, the
smallest of them first. Each is traced once, in a process of its own with one thread, written as a
`torch.export` program and as ONNX, and both are run at three sizes and compared with the network.
Rows are written as they are done, and the versions of the libraries to a second file. A run with
the same versions goes on where the last one stopped; networks that took too long are tried again.
"""

import argparse
import csv
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUTPUT = ROOT / "docs" / "tutorials" / "export_families.csv"
COLUMNS = ("family", "library", "architecture", "torch_export", "onnx", "seconds", "reason")
FORMATS = {"torch-export": ("torch_export", "a.pt2"), "onnx": ("onnx", "a.onnx")}
LIBRARIES = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime")
NOT_DONE = "not done within"

Row = dict[str, str]


def families(count: int) -> list[Row]:
    """Choose the families with the most architectures, and the smallest architecture of each.

    Returns:
        Rows of family, library and architecture, that with the fewest multiply-adds first.
    """
    import timm
    import torchvision

    from detrex.catalog.table import read_catalog

    known = {"timm": set(timm.list_models()), "torchvision": set(torchvision.models.list_models())}
    members: dict[tuple[str, str], list] = {}
    for entry in read_catalog().entries:
        if entry.reason or not entry.strides or entry.name not in known[entry.library]:
            continue
        if entry.library == "timm":
            home = timm.model_entrypoint(entry.name).__module__
        else:
            home = torchvision.models.get_model_builder(entry.name).__module__
        members.setdefault((home.rpartition(".")[2], entry.library), []).append(entry)
    largest = sorted(members, key=lambda key: (-len(members[key]), key))[:count]
    smallest = {key: min(members[key], key=lambda e: (e.gflops, e.params)) for key in largest}
    return [
        {"family": family, "library": library, "architecture": smallest[family, library].name}
        for family, library in sorted(largest, key=lambda key: smallest[key].gflops)
    ]


def export_one(library: str, name: str) -> Row:
    """Export one network in both formats; ``"reason"`` says what failed."""
    return list(_steps(library, name))[-1]


def _steps(library: str, name: str) -> Iterator[Row]:
    """Give what is known of a network before and after each format."""
    import torch

    from detrex.errors import DetrexError
    from detrex.export.exporting import Exportable
    from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone

    torch.manual_seed(0)
    build = TimmBackbone if library == "timm" else TorchvisionBackbone
    row = {"torch_export": "no", "onnx": "no", "reason": ""}
    yield row
    try:
        exportable = Exportable(build(name, out_strides=(8, 16, 32)).eval())
    except DetrexError as error:
        yield {**row, "reason": str(error)}
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind, (column, file) in FORMATS.items():
            try:
                report = exportable.write(f"{folder}/{file}", kind)
                row = {**row, column: f"{max(report.differences.values()):.1e}"}
            except DetrexError as error:
                said = f"{kind}: {error} ".replace(f"{folder}/", "")
                row = {**row, "reason": row["reason"] + said}
            yield row


def run_apart(row: Row, limit: float) -> Row:
    """Fill a row by a process of its own, which may take only so many seconds."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", row["library"]]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": paths}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            subprocess.run(
                [*command, row["architecture"]],
                env=variables,
                stdout=out,
                stderr=errors,
                timeout=limit,
                check=True,
            )
            failed = ""
        except subprocess.TimeoutExpired:
            failed = f"{NOT_DONE} {limit:.0f} s"
        except subprocess.CalledProcessError:
            failed = f"the process failed: {_last_line(errors) or 'no message'}"
        found = json.loads(_last_line(out) or '{"torch_export": "no", "onnx": "no", "reason": ""}')
    found["reason"] = (found["reason"] + failed).strip()
    return {**row, **found, "seconds": f"{time.perf_counter() - start:.0f}"}


def _last_line(stream: IO[str]) -> str:
    stream.seek(0)
    return (stream.read().strip().splitlines() or [""])[-1]


def versions() -> Row:
    """Give the versions of Python and of the libraries that decide what exports."""
    found = {name: importlib.import_module(name).__version__ for name in LIBRARIES}
    return {"python": platform.python_version(), **found}


def versions_file(table: Path) -> Path:
    """Say where the versions are that a table was made with."""
    return table.with_name(f"{table.stem}_versions.csv")


def _kept_rows(table: Path, found: Row) -> list[Row]:
    """Read the rows of an earlier run with the same versions, and write the versions."""
    file = versions_file(table)
    text = "".join(f"{','.join(pair)}\n" for pair in [("library", "version"), *found.items()])
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(text, encoding="utf-8")
    if not table.exists() or before != text:
        return []
    with table.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if NOT_DONE not in row["reason"]]


def _write(table: Path, rows: list[Row]) -> None:
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["family"], row["library"])))


def main() -> None:
    """Write the rows that are missing, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--families", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time, a core each")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one network")
    parser.add_argument("--one", nargs=2, metavar=("LIBRARY", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        for row in _steps(*arguments.one):
            print(json.dumps(row), flush=True)
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT))
    rows = _kept_rows(arguments.output, versions())
    done = {(row["family"], row["library"]) for row in rows}
    missing = [
        row for row in families(arguments.families) if (row["family"], row["library"]) not in done
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for task in as_completed(pool.submit(run_apart, row, arguments.limit) for row in missing):
            rows.append(task.result())
            _write(arguments.output, rows)
            print(" ".join(rows[-1].values()), flush=True)
    for column in ("torch_export", "onnx"):
        exported = sum(row[column] != "no" for row in rows)
        print(f"{column}: {exported} of {len(rows)} families")


if __name__ == "__main__":
    main()
