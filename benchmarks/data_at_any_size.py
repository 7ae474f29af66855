"""Memory of the training loader, and seconds to its first batch, by the size of the data set.

    python -m benchmarks.data_at_any_size [--sizes 100000 1000000 10000000] [--ranks 1 2] [--plain]

The index is synthetic (three boxes an image, no pictures), made record by record, and the mapper
hands records on. Each case runs in fresh processes, every rank with two workers:

* start: seconds from the index to the first batch, the records' storage and the workers included;
* resume: seconds to the first batch from the middle of the fourth epoch on, with and without
  aspect_ratio_grouping;
* memory: what a rank and its workers take beside what the rank took before the index, each page
  divided by the processes that share it (PSS), after 200 batches;
* peak: the most that the rank had resident up to then, beside what it had before the index;
* file: what the records take on the disk, once for all ranks.

`--plain` measures the plain loop of `tests.reference.plain_loader`, of which every rank holds the
records itself and passes over what was seen before.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch.distributed

from benchmarks.ranks import last_lines

WORKERS, TOTAL_BATCH_SIZE, BATCHES = 2, 16, 200
COLUMNS = ("start", "resume", "resume ungrouped", "memory", "peak", "file")
MEBIBYTE = 2**20


class Index(Sequence):
    """Records that are made when they are asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= self.size:
            raise IndexError(index)
        height, width = (480, 640) if index % 10 < 7 else (640, 480)
        boxes = [[index % 97 + 3.25 * k, index % 89 + 0.5, 40.5 + k, 60.25] for k in range(3)]
        return {
            "file_name": f"train/{index:012d}.jpg",
            "height": height,
            "width": width,
            "image_id": index,
            "annotations": [
                {"iscrowd": 0, "bbox": box, "category_id": (index + k) % 80, "bbox_mode": 1}
                for k, box in enumerate(boxes)
            ],
        }


def same(record: dict[str, Any]) -> dict[str, Any]:
    """Map a record to itself."""
    return record


def main(words: Sequence[str] | None = None) -> None:
    """Measure each case in processes of its own, or be one of the ranks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meet", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.rank is not None:
        print(json.dumps(measure(arguments)))
        return
    print("| images | ranks |", *(f"{name} |" for name in COLUMNS))
    print("|---" * (2 + len(COLUMNS)) + "|")
    for size in arguments.sizes:
        for ranks in arguments.ranks:
            values = run(size, ranks, arguments.plain)
            print(f"| {size:,} | {ranks} |", *(f"{_readable(values[n])} |" for n in COLUMNS))


def run(size: int, ranks: int, plain: bool) -> dict[str, float]:
    """Start the ranks of a case, and give for each column the largest of their values.

    Raises:
        RuntimeError: if a rank fails; with the last line that it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["-W", "ignore", "-m", "benchmarks.data_at_any_size", "--meet", f"{folder}/meet"]
        command += ["--sizes", str(size), "--ranks", str(ranks), *["--plain"] * plain]
        measured = [json.loads(line) for line in last_lines(command, ranks)]
    return {name: max(one[name] for one in measured) for name in COLUMNS}


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Be one rank of a case."""
    (size,), (ranks,) = arguments.sizes, arguments.ranks
    if ranks > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        meet = f"file://{arguments.meet}"
        torch.distributed.init_process_group(
            "gloo", init_method=meet, rank=arguments.rank, world_size=ranks
        )
    options = {"batch_size": TOTAL_BATCH_SIZE // ranks, "num_workers": WORKERS}
    options |= {"rank": arguments.rank, "world_size": ranks}
    build = plain_loader if arguments.plain else detrex_loader
    build(Index(64), True, options)  # imports what it needs
    before, resident = memory([os.getpid()]), _field("status", os.getpid(), "VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    began = time.perf_counter()
    loader = build(Index(size), True, options)
    found = {"start": seconds_to_batch(loader, 0, began)}
    middle = int(3.5 * size / TOTAL_BATCH_SIZE)
    loader.seek(middle, 1)
    began = time.perf_counter()
    batches = iter(loader)
    next(batches)
    found["resume"] = time.perf_counter() - began
    for _ in islice(batches, BATCHES):
        pass
    found["memory"] = memory([os.getpid(), *_children()]) - before
    found["peak"] = _field("status", os.getpid(), "VmHWM") - resident
    found["file"] = 0 if arguments.plain else os.fstat(loader.records.file.fileno()).st_size
    del batches
    if arguments.plain:
        loader.groups = None
    else:
        loader = detrex_loader(loader.records, False, options)
    found["resume ungrouped"] = seconds_to_batch(loader, middle, time.perf_counter())
    if ranks > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return found


def plain_loader(index: Iterable[Any], grouping: bool, options: dict[str, Any]) -> Any:
    """Build the loader that holds everything."""
    from tests.reference.plain_loader import PlainLoader

    return PlainLoader(index, same, aspect_ratio_grouping=grouping, **options)


def detrex_loader(index: Iterable[Any], grouping: bool, options: dict[str, Any]) -> Any:
    """Build detrex's loader as a run does."""
    from detrex.data.loader import TrainLoader
    from detrex.data.stored_records import StoredRecords, store
    from detrex.utils.machines import once_a_machine

    records = index if isinstance(index, StoredRecords) else once_a_machine(lambda: store(index))
    loader: Any = TrainLoader(records, same, aspect_ratio_grouping=grouping, **options)
    loader.records = records
    return loader


def seconds_to_batch(loader: Any, batch: int, began: float) -> float:
    """Give the seconds since a moment when a batch of a new iterator is here."""
    loader.seek(batch, 1)
    next(iter(loader))
    return time.perf_counter() - began


def memory(processes: Sequence[int]) -> int:
    """Give the bytes of some processes, with their part of what they share."""
    return sum(_field("smaps_rollup", process, "Pss") for process in processes)


def _field(file: str, process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/{file}").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _children() -> list[int]:
    own = os.getpid()
    text = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def _readable(value: float) -> str:
    return f"{value / MEBIBYTE:,.0f} MiB" if value > 10**4 else f"{value:.2f} s"


if __name__ == "__main__":
    main()
