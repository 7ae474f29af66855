"""Read damaged and hostile weights files, and count how each ends.

    python -m benchmarks.fuzz_weights --count 100000     mutations of valid files of every kind
    python -m benchmarks.fuzz_weights --folder FOLDER    the files of a folder, one JSON line each

Files are read, and loaded into a small network, in processes forked from this one, many in each. A
file may be read (and fit the network, or be refused by it), or be refused in one sentence
(`CheckpointError`), in so much memory as `detrex.checkpoint.reading.bounds` says; the exit status
is 1 where one ends in any other error, a signal or a hang, or takes more.
"""

import argparse
import json
import logging
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.memory_use import peak_rss
from benchmarks.weights_mutations import case
from detrex.checkpoint import load_weights
from detrex.checkpoint.reading.bounds import CONSTANT, PEAK
from detrex.checkpoint.reading.state_dict import read_checkpoint, tensors_of
from detrex.errors import CheckpointError

BATCH = 2000
HANG = 20
# Beyond what any file may take; an allocation beyond it fails instead of filling the machine.
MOST_ADDRESSES = 8 << 30
GOOD = ("loaded", "read", "sentence")


class Network(nn.Module):
    """What the files are loaded into: kernels, a number and a norm, under names that they have."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(3, 4))
        self.f = nn.Parameter(torch.zeros(2, 3))
        self.n = nn.Parameter(torch.zeros(()))
        self.tied = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(3)


class StrictLog(logging.Handler):
    """Take what is logged as a file or a terminal does; what cannot be written is an error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.format(record).encode()


def listen() -> None:
    """Have all that the package logs be written, to nowhere."""
    logger = logging.getLogger("detrex")
    logger.addHandler(StrictLog())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def outcome(file: Path, size: int = 0) -> dict[str, Any]:
    """Read a file, take its table of tensors and load them.

    Args:
        file: to read; it may be the index of others.
        size: bytes of all that is read; those of the file by default.

    Returns:
        ``name``, ``end`` (one of `GOOD`, or what is wrong), ``message``, ``seconds``,
        ``size``, and ``grown``, bytes by which this process grew at most.
    """
    size = size or file.stat().st_size
    before, start = _mark_memory(), time.perf_counter()
    end, message = "sentence", ""
    try:
        content = read_checkpoint(file)
        # A copy touches every element that a tensor claims.
        for tensor in tensors_of(content, str(file)).values():
            tensor.clone()
        end = "read"
        load_weights(Network(), content, name=str(file), min_share=0.01)
        end = "loaded"
    except CheckpointError as error:
        message = str(error)
        told = len(message) - message.count(str(file)) * len(str(file)) < 500
        end = end if told and message.isprintable() else "an unfit sentence"
    except Exception as error:
        message, end = traceback.format_exc()[-1500:], type(error).__name__
    seconds, grown = time.perf_counter() - start, peak_rss() - before
    if end in GOOD and grown > PEAK * size + CONSTANT:
        end = "too much memory"
    return dict(name=file.name, end=end, message=message, seconds=seconds, grown=grown, size=size)


def _mark_memory() -> int:
    """Let the kernel count this process's largest memory from now on, and give what it has."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_rss()
    return peak_rss()


def outcomes_of_cases(seed: int, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Write and read cases by their numbers, in this process.

    Yields:
        Before each case ``{"number"}``, and after it its outcome.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            yield {"number": number}
            made = case(seed, number)
            files = [Path(folder) / name for name in made.files]
            for file, data in zip(files, made.files.values(), strict=True):
                file.write_bytes(data)
            yield outcome(files[0], made.size) | {"kind": made.kind}
            for file in files:
                file.unlink()


def in_a_process(work: Callable[[], Iterable[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Run a generator in a process forked from this one, which may die or hang.

    Yields:
        What it yields, and ``{"died"}`` at the end where it did not come to its own.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_the_process(work, writing)
    os.close(writing)
    hung = False
    with open(reading, "rb", buffering=0) as stream:
        rest = b""
        while True:
            if not select.select([stream], [], [], HANG)[0]:
                hung = True
                os.kill(pid, signal.SIGKILL)
                break
            data = stream.read(1 << 16)
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)
            if not data:
                break
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if hung or status:
        yield {"died": "a hang" if hung else f"signal {-status}" if status < 0 else str(status)}


def _be_the_process(work: Callable[[], Iterable[dict[str, Any]]], writing: int) -> None:
    status = 1
    try:
        here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + MOST_ADDRESSES, resource.RLIM_INFINITY))
        with open(writing, "wb", buffering=0) as stream:
            for line in work():
                stream.write(json.dumps(line).encode() + b"\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class Tally:
    """How all the cases ended, by their kinds."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self.longest = self.largest = self.share = 0.0

    def add(self, number: int, result: dict[str, Any]) -> None:
        """Count an outcome, or a death that has no kind."""
        end = result.get("end") or f"died ({result['died']})"
        self.ends[result.get("kind", "?"), end] += 1
        if end not in GOOD:
            self.failures.append(f"{number}: {end}: {result.get('message', '')}")
        self.longest = max(self.longest, result.get("seconds", 0))
        self.largest = max(self.largest, grown := result.get("grown", 0))
        self.share = max(self.share, grown / (PEAK * result.get("size", 1) + CONSTANT))

    def report(self) -> str:
        """Write a table and the largest figures."""
        kinds = sorted({kind for kind, _ in self.ends})
        bad = sum(n for (_, end), n in self.ends.items() if end not in GOOD)
        signals = sum(n for (_, end), n in self.ends.items() if "signal" in end)
        hangs = sum(n for (_, end), n in self.ends.items() if "hang" in end)
        rows = [
            "| kind | files | loaded | read | one sentence | other |",
            "|:--" + "|--:" * 5 + "|",
        ]
        for kind in kinds:
            total = sum(n for (k, _), n in self.ends.items() if k == kind)
            good = [self.ends[kind, end] for end in GOOD]
            cells = (kind, total, *good, total - sum(good))
            rows.append(f"| {' | '.join(map(str, cells))} |")
        return "\n".join(
            (
                *self.failures,
                *rows,
                f"{sum(self.ends.values())} files: {bad} failures, {signals} signals, {hangs} "
                "hangs",
                f"longest {self.longest:.2f} s, largest growth of memory "
                f"{self.largest / 2**20:.0f} MiB, {self.share:.0%} of what is allowed",
            )
        )


def run(seed: int, count: int, batch: int = BATCH) -> Tally:
    """Read so many cases, in processes each of which goes on after one that died.

    Args:
        seed: of the cases.
        count: how many.
        batch: how many are read in one process.

    Returns:
        How they ended.
    """
    tally, number = Tally(), 0
    while number < count:
        upto = min(count, number + batch)
        results = in_a_process(lambda a=number, b=upto: outcomes_of_cases(seed, a, b - a))
        for result in results:
            if "number" in result:
                number = result["number"]
            else:
                tally.add(number, result)
                number += 1
    return tally


def main() -> int:
    """Parse the command line and run.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="files to make and read")
    parser.add_argument("--seed", type=int, default=0, help="of the files")
    parser.add_argument("--folder", type=Path, help="read the files of this folder instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    listen()
    if args.folder:
        for file in sorted(args.folder.iterdir()):  # in a process of its own, with fresh memory
            for result in in_a_process(lambda file=file: [outcome(file)]):
                print(json.dumps({"name": file.name} | result), flush=True)
        return 0
    start = time.perf_counter()
    tally = run(args.seed, args.count)
    print(tally.report())
    print(f"seed {args.seed}, {time.perf_counter() - start:.0f} s")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
