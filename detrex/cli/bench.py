"""``detrex bench``: time the parts of a config, or compare backbones in one small detector."""

import argparse
import sys
from pathlib import Path
from typing import Any

from detrex.cli import bench_model
from detrex.cli.arguments import add_config_arguments, parse_positive, typed
from detrex.cli.completion import complete_backbones

_EXAMPLES = """
detrex bench train dino/demo_shapes.py -n 20 train.device=cpu
detrex bench data_advanced dino/dino_r50_4scale_12ep.py -n 50 dataloader.train.num_workers=8
detrex bench backbones --names resnet18 mobilenetv3_large_100 --seeds 1
"""
_TIMING_EXAMPLES = """
detrex bench {task} dino/demo_shapes.py -n 20
detrex bench {task} dino/dino_r50_4scale_12ep.py -n 50 --warmup 5 train.device=cpu
"""
_STUDY_EXAMPLES = """
detrex bench backbones --names resnet18 mobilenetv3_large_100 convnext_atto --seeds 1
detrex bench backbones --step costs --step page --output output/bench
"""
_TASKS = {
    "train": "optimizer steps, on batches kept in memory",
    "eval": "inference, on batches kept in memory",
    "data": "the batches of the training loader",
    "data_advanced": "the training loader with fewer and fewer parts",
}
_STEPS = ("train", "costs", "page")


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "bench",
        help="time the parts of a config, or compare backbones",
        description="Time the parts of a config's training and evaluation, each step after a few "
        "that are not; or train the same small detector over many backbones.",
        examples=_EXAMPLES,
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, what in _TASKS.items():
        _add_timing(tasks, name, what)
    bench_model.add_parser(tasks)
    _add_study(tasks)


def _add_timing(tasks: Any, name: str, what: str) -> None:
    parser = tasks.add_parser(
        name,
        help=f"time {what}",
        description=f"Time {what}.",
        examples=_TIMING_EXAMPLES.format(task=name),
    )
    add_config_arguments(parser)
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="processes (1)")
    add_step_options(parser)
    parser.set_defaults(run=run, parser=parser)


def add_step_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--num-iters`` and ``--warmup``.

    Args:
        parser: gets them.
    """
    parser.add_argument("-n", "--num-iters", default=100, type=int, help="timed steps (100)")
    parser.add_argument("--warmup", default=10, type=int, help="steps before them (10)")


def _add_study(tasks: Any) -> None:
    parser = tasks.add_parser(
        "backbones",
        help="train the same small detector over many backbones, and measure what they cost",
        description="Train a small RetinaNet over many backbones on drawn shapes, with equal "
        "iterations and settings, and measure what they cost here. Runs that are in --output are "
        "not done again. All of it takes hours of one core; `--step costs` minutes.",
        examples=_STUDY_EXAMPLES,
    )
    count = typed(parse_positive, "3")
    names = parser.add_argument(
        "--names", nargs="+", default=[], metavar="NAME", help="architectures of the catalog"
    )
    names.completer = complete_backbones  # argcomplete reads it
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="runs of each (3)")
    parser.add_argument("--iterations", type=count, default=300, metavar="N", help="of a run (300)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/bench"),
        metavar="DIR",
        help="for rows, protocol and plot (output/bench)",
    )
    parser.add_argument(
        "--step", choices=_STEPS, action="append", help="one of the three steps; all by default"
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE.md",
        help="write the table between the marks of this page, and the files beside it",
    )
    parser.set_defaults(run=run_study, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Time a config.

    Args:
        arguments: as parsed.

    Returns:
        Exit status.

    Raises:
        ConfigError: see `time_config`.
    """
    time_config(
        argparse.Namespace(
            config_file=arguments.config,
            opts=arguments.overrides,
            trust=arguments.trust,
            task=arguments.task,
            num_iters=arguments.num_iters,
            warmup=arguments.warmup,
            num_gpus=arguments.num_gpus,
            num_machines=1,
            machine_rank=0,
            dist_url="auto",
        )
    )
    return 0


def time_config(arguments: argparse.Namespace) -> None:
    """Time one task of a config, in as many processes as asked, and print a line for each part.

    Args:
        arguments: those of ``tools/train_net.py``, and ``task``, ``num_iters`` and ``warmup``.

    Raises:
        ConfigError: there is no config, or no step to time.
    """
    from detrex.engine.launch import launch
    from detrex.errors import ConfigError

    if not arguments.config_file:
        raise ConfigError("There is no config to time: name one by --config-file.")
    if arguments.num_iters < 1 or arguments.warmup < 0:
        raise ConfigError(
            f"--num-iters is from 1 and --warmup from 0, got {arguments.num_iters} and "
            f"{arguments.warmup}."
        )
    device = str(_load(arguments).train.device)
    machines = (arguments.num_gpus, arguments.num_machines, arguments.machine_rank)
    launch(_time_here, *machines, arguments.dist_url, (arguments,), device=device)


def _time_here(arguments: argparse.Namespace) -> None:
    from detectron2.utils import comm

    from detrex.benchmark.timing import TASKS, Steps

    steps = Steps(arguments.num_iters, arguments.warmup)
    for timing in TASKS[arguments.task](_load(arguments), steps):
        if comm.is_main_process():
            print(timing.text(comm.get_world_size()), flush=True)


def _load(arguments: argparse.Namespace) -> Any:
    """Load the config with its overrides, and with defaults for what it leaves out."""
    from detrex.config.validation import settle
    from detrex.engine.overrides import load_overridden

    opts = arguments.opts or []
    return settle(load_overridden(arguments.config_file, opts, arguments.trust))


def run_study(arguments: argparse.Namespace) -> int:
    """Compare backbones.

    Args:
        arguments: as parsed.

    Returns:
        Exit status.

    Raises:
        DetrexError: a name is none of the catalog's, or a step cannot be taken.
    """
    from detrex.benchmark.candidates import find_candidates
    from detrex.benchmark.environment import busy_warning, environment
    from detrex.benchmark.study import Plan, train_all
    from detrex.benchmark.study_files import StudyFiles
    from detrex.benchmark.study_page import around_table, write_page

    steps = arguments.step or _STEPS
    candidates = find_candidates(arguments.names)
    files = StudyFiles(arguments.output)
    if arguments.page is not None:
        around_table(arguments.page)  # before hours of training
    if "train" in steps:
        train_all(candidates, Plan(arguments.iterations, arguments.seeds), files, _tell)
    if "costs" in steps:
        from detrex.benchmark.costs import measure_all

        if warning := busy_warning(environment(1)):
            print(f"detrex: {warning}", file=sys.stderr)
        measure_all(candidates, files, tell=_tell)
    if "page" in steps:
        print(write_page(files, arguments.page))
        _tell(f"written: {files.runs}, {files.costs}, {files.protocol}, {files.plot}")
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)
