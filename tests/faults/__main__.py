"""Try what can go wrong, and count how it ends.

    python -m tests.faults                        all of it; 20 minutes on two cores
    python -m tests.faults --sample               a few of each kind; seconds
    python -m tests.faults kills --count 10       so many of one kind
    python -m tests.faults kills --only NAME      what has NAME in its name, with what it printed

The status is 1 where a trial ended otherwise than expected.
"""

import argparse
import dataclasses
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from detrex.benchmark.environment import environment
from tests.faults.campaign import FULL, SAMPLE, failures, run_campaign
from tests.faults.page import PAGE, page
from tests.faults.trials import ROOT

WARM = (  # what the trials use, imported once for all of them
    *("detectron2.data", "detectron2.evaluation", "detectron2.model_zoo", "scipy.optimize", "timm"),
    *("torch.utils.tensorboard", "torch.distributed", "torchvision", "pycocotools.cocoeval"),
    *("detrex.cli.main", "detrex.data", "detrex.engine", "detrex.export"),
)


def main(words: Sequence[str] | None = None) -> int:
    """Run what was asked for; give the exit status."""
    description = (__doc__ or "").split("\n")[0]
    options = argparse.ArgumentParser("python -m tests.faults", description=description)
    options.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(FULL)}")
    options.add_argument("--count", type=int, help="trials of each kind")
    options.add_argument("--seed", type=int, default=0, help="of the trials; default 0")
    options.add_argument("--sample", action="store_true", help="a few of each kind")
    options.add_argument("--only", default="", metavar="NAME", help="those with NAME in their name")
    cores = len(os.sched_getaffinity(0))
    options.add_argument("--jobs", type=int, default=cores, help="at once; default all cores")
    options.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    options.add_argument("--page", action="store_true", help=f"write docs/{PAGE.name}")
    arguments = options.parse_args(words)
    if unknown := set(arguments.kinds) - FULL.keys():
        options.error(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(FULL)}")
    defaults = SAMPLE if arguments.sample else FULL
    counts = {
        kind: defaults[kind] if arguments.count is None else arguments.count
        for kind in arguments.kinds or FULL
    }
    _warm_up()
    start = time.monotonic()
    results = run_campaign(counts, arguments.seed, arguments.jobs, arguments.only, _show)
    minutes = (time.monotonic() - start) / 60
    if arguments.only:
        for result in results:
            _show(f"\n== {result.name}: {result.outcome} {result.facts}\n{result.output}")
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(r) for r in results], indent=1))
    text = page(results, environment(1), "make faults", arguments.seed, minutes)
    if arguments.page:
        PAGE.write_text(text, encoding="utf-8")
    _show(text[text.index("| kind |") :])
    for result in failures(results):
        _show(
            f"again: python -m tests.faults {result.kind} --seed {arguments.seed} "
            f"--count {counts[result.kind]} --only '{result.name}'"
        )
    return int(bool(failures(results)))


def _warm_up() -> None:
    """Import what the trials use; this process stays on one thread, so that it can be forked."""
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.filterwarnings("ignore")
    for name in WARM:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


def _show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
