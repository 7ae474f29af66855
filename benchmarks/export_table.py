"""Try to export one small network of each family of the catalogue, and write what exports.

    python benchmarks/export_table.py --families 60

A family is a file of timm's or torchvision's models; of each the architecture with the fewest
multiply-adds is taken, with random weights, strides 8, 16 and 32, and any height and width. Each is
traced once, written as a `torch.export` program and as ONNX, and both are run at three sizes and
compared with the network. Rows that are there already are kept, so that a run can be continued.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFAULT_OUTPUT = Path(__file__).parents[1] / "docs" / "tutorials" / "export_families.csv"
COLUMNS = ("family", "library", "architecture", "torch_export", "onnx", "seconds", "reason")
FORMATS = {"torch-export": ("torch_export", "a.pt2"), "onnx": ("onnx", "a.onnx")}


def families(count: int) -> list[tuple[str, str, str]]:
    """Choose the families with the most architectures: family, library, smallest architecture."""
    import timm
    import torchvision

    from detrex.catalog.table import read_catalog

    members: dict[tuple[str, str], list] = {}
    for entry in read_catalog().entries:
        if entry.reason or not entry.strides:
            continue
        if entry.library == "timm":
            home = timm.model_entrypoint(entry.name).__module__
        else:
            home = torchvision.models.get_model_builder(entry.name).__module__
        members.setdefault((home.rpartition(".")[2], entry.library), []).append(entry)
    largest = sorted(members, key=lambda key: (-len(members[key]), key))[:count]
    smallest = {key: min(members[key], key=lambda e: (e.gflops, e.params)) for key in largest}
    return [(*key, smallest[key].name) for key in largest]


def export_one(library: str, name: str) -> dict[str, str]:
    """Export one network in both formats; ``"reason"`` says what failed."""
    import torch

    from detrex.errors import DetrexError
    from detrex.export.exporting import Exportable
    from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone

    torch.manual_seed(0)
    build = TimmBackbone if library == "timm" else TorchvisionBackbone
    row = {"torch_export": "no", "onnx": "no", "reason": ""}
    try:
        exportable = Exportable(build(name, out_strides=(8, 16, 32)).eval())
        with tempfile.TemporaryDirectory() as folder:
            for kind, (column, file) in FORMATS.items():
                try:
                    report = exportable.write(f"{folder}/{file}", kind)
                    row[column] = f"{max(report.differences.values()):.1e}"
                except DetrexError as error:
                    row["reason"] += f"{kind}: {error} "
    except DetrexError as error:
        row["reason"] = str(error)
    row["reason"] = (
        row["reason"].replace(folder + "/", "") if "folder" in locals() else row["reason"]
    )
    return row


def run_apart(library: str, name: str, limit: float) -> dict[str, str]:
    """Export one network in a process of its own, which may take only so long."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", library, name]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        last = done.stdout.strip().splitlines()[-1:] or ["{}"]
        row = json.loads(last[0]) if done.returncode == 0 else {}
        if not row:
            error = done.stderr.strip().splitlines()[-1:] or ["no message"]
            row = {"torch_export": "no", "onnx": "no", "reason": f"the process failed: {error[0]}"}
    except subprocess.TimeoutExpired:
        row = {"torch_export": "no", "onnx": "no", "reason": f"not done within {limit:.0f} s"}
    return {**row, "seconds": f"{time.perf_counter() - start:.0f}"}


def main() -> None:
    """Write the rows that are missing, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--families", type=int, default=60)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one network")
    parser.add_argument("--one", nargs=2, metavar=("LIBRARY", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(export_one(*arguments.one)))
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if arguments.output.exists():
        with arguments.output.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    done = {(row["family"], row["library"]) for row in rows}
    for family, library, name in families(arguments.families):
        if (family, library) in done:
            continue
        print(f"{family} ({library}): {name}", flush=True)
        names = {"family": family, "library": library, "architecture": name}
        rows.append({**names, **run_apart(library, name, arguments.limit)})
        with arguments.output.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for column in ("torch_export", "onnx"):
        exported = sum(row[column] != "no" for row in rows)
        print(f"{column}: {exported} of {len(rows)} families")


if __name__ == "__main__":
    main()
