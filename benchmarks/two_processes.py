"""Training on two ranks (gloo) of one thread each beside one rank of one thread.

    python -m benchmarks.two_processes [--quick]

Each rank trains DINO-R50 on a picture of its own (240 x 320 in the short version, 480 x 640 in the
full one), so that two ranks at best see twice the pictures in a second. The efficiency is what they
see over that. One step before the counted ones builds the reducer's buckets.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence

import torch

from benchmarks.protocol import Results, parse, parser
from benchmarks.ranks import last_lines
from detrex.benchmark.turns import Comparison

ONE, TWO = "one rank", "two ranks"


def main(words: Sequence[str] | None = None) -> None:
    """Measure one rank and two ranks in turns, or be one of the ranks."""
    options = parser(__doc__)
    options.add_argument("--size", type=int, nargs=2)
    options.add_argument("--config", default="dino/models/dino_r50.py")
    options.add_argument("--turns", type=int, default=2, help="how often both are started")
    options.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    options.add_argument("--world", type=int, help=argparse.SUPPRESS)
    options.add_argument("--meet", help=argparse.SUPPRESS)
    options.set_defaults(repeats=5, threads=1)
    arguments = parse(options, words)
    arguments.size = arguments.size or ([240, 320] if arguments.quick else [480, 640])
    if arguments.rank is not None:
        train(arguments)
        return
    results = Results("two_processes", arguments)
    rates: dict[str, list[float]] = {ONE: [], TWO: []}
    for _ in range(1 if arguments.quick else arguments.turns):
        for name, world in ((ONE, 1), (TWO, 2)):
            rates[name] += [world / seconds for seconds in steps(world, arguments)]
    case = "DINO-R50 training, {} x {}".format(*arguments.size)
    results.keep(case, Comparison(rates, ONE, unit="pictures/s"))
    efficiency = statistics.median(rates[TWO]) / statistics.median(rates[ONE]) / 2
    results.keep("efficiency of two ranks", Comparison({TWO: [efficiency]}, TWO, unit="1"))


def steps(world: int, arguments: argparse.Namespace) -> list[float]:
    """Start the ranks, and give the seconds of each counted step of the first.

    Raises:
        RuntimeError: if a rank fails; with the last line that it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "benchmarks.two_processes", "--world", str(world)]
        command += ["--config", arguments.config, "--repeats", str(arguments.repeats)]
        command += ["--meet", f"{folder}/meet", "--threads", str(arguments.threads), "--size"]
        lines = last_lines([*command, *map(str, arguments.size)], world)
    return json.loads(lines[0])


def train(arguments: argparse.Namespace) -> None:
    """Be one rank: train, and write the seconds of the counted steps."""
    from benchmarks.detectors import batch, dino, training_step
    from detrex.engine.distributed import wrap_ddp

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{arguments.meet}",
        rank=arguments.rank,
        world_size=arguments.world,
    )
    model = wrap_ddp(dino(arguments.config), torch.device("cpu"), {})
    step = training_step(model, batch(tuple(arguments.size)))
    step()
    seconds = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
