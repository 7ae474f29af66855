"""A small batch with two threads beside other people's programs, with and without our variables.

    python -m benchmarks.busy_machine [--quick]

Each busy session is a session of its own, to which the scheduler gives a share like that of all of
ours together, and keeps one core. Two programs evaluate a ResNet-18 in turns, batch by batch: one
with OpenMP's defaults and one with what `detrex.threads` sets for the package's commands.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.protocol import Results, parser
from detrex.benchmark.turns import Comparison
from detrex.threads import COUNTS, WAITING, thread_variables

ROOT = Path(__file__).resolve().parent.parent
DEFAULT, OURS = "OpenMP's default", "detrex.threads"
LONGEST = 120  # seconds after which a busy session ends by itself
_BUSY = """
import os, sys, time
end, parent = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])
while time.monotonic() < end and os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


def main(words: Sequence[str] | None = None) -> None:
    """Measure beside none, two and three sessions, or be one of the programs."""
    options = parser(__doc__)
    options.add_argument("--sessions", type=int, nargs="+", default=(0, 2, 3))
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options.set_defaults(threads=2)
    arguments = options.parse_args(words)
    if arguments.worker:
        work()
        return
    results = Results("busy_machine", arguments)
    plain = {n: v for n, v in os.environ.items() if n not in (*COUNTS, *WAITING)}
    plain["OMP_NUM_THREADS"] = str(arguments.threads)
    environments = {DEFAULT: plain, OURS: plain | thread_variables(plain)}
    with contextlib.ExitStack() as stack:
        programs = {
            name: stack.enter_context(program(environment))
            for name, environment in environments.items()
        }
        for sessions in arguments.sessions:
            with busy(sessions):
                samples = measure(programs, arguments.repeats)
            case = f"ResNet-18 beside {sessions} busy sessions"
            results.keep(case, Comparison(samples, DEFAULT))


# By then the threads of the program that had the last turn have stopped to spin.
_TURN = 0.1


def measure(programs: dict[str, subprocess.Popen[str]], repeats: int) -> dict[str, list[float]]:
    """Let the programs take turns; give the seconds of each counted batch."""
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        for name in list(programs) if turn % 2 else reversed(programs):
            running = programs[name]
            time.sleep(_TURN)
            print("go", file=running.stdin, flush=True)
            seconds = float(running.stdout.readline())
            if turn:  # the first warms up
                samples[name].append(seconds)
    return samples


@contextlib.contextmanager
def program(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program that evaluates a batch whenever it is told to, and end it."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.busy_machine", "--worker"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        try:
            running.stdout.readline()  # it is ready
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def busy(sessions: int) -> Iterator[None]:
    """Keep cores busy from sessions of their own, which end with the context or this program."""
    command = [sys.executable, "-c", _BUSY, str(LONGEST), str(os.getpid())]
    running = [subprocess.Popen(command, start_new_session=True) for _ in range(sessions)]
    try:
        time.sleep(1 if sessions else 0)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def work() -> None:
    """Evaluate a batch for every line that is read, and print its seconds."""
    import torch
    import torchvision

    network = torchvision.models.resnet18().eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        network(images)
        print("ready", flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            network(images)
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
