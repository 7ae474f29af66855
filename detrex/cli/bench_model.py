"""``detrex bench model``: FLOPs, activations, parameters or the structure of a config's model."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from detrex.cli.arguments import add_config_arguments
from detrex.options import positive

_EXAMPLES = """
detrex bench model dino/dino_r50_4scale_12ep.py --tasks parameter structure
detrex bench model dino/demo_shapes.py --tasks flop activation -n 1 --input-size 128 128
"""
_TASKS = ("flop", "activation", "parameter", "structure")


def add_parser(tasks: Any) -> None:
    """Add the task to those of ``detrex bench``.

    Args:
        tasks: argparse's subparsers.
    """
    parser = tasks.add_parser(
        "model",
        help="count parameters, FLOPs and activations, or print the structure",
        description="Count a configured model's FLOPs, activations and parameters, or print its "
        "structure. FLOPs (a multiplication and its addition count as one) and activations are "
        "means over pictures of dataloader.test, or over random ones of --input-size.",
        examples=_EXAMPLES,
    )
    add_config_arguments(parser)
    add_count_options(parser, required=False)
    parser.set_defaults(run=run, parser=parser)


def add_count_options(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add ``--tasks``, ``--num-inputs`` and ``--input-size``.

    Args:
        parser: gets them.
        required: whether tasks must be named; else parameters are counted.
    """
    parser.add_argument(
        "--tasks",
        required=required,
        default=["parameter"],
        choices=_TASKS,
        nargs="+",
        help="what to count" if required else "what to count (parameter)",
    )
    parser.add_argument(
        "-n",
        "--num-inputs",
        default=100,
        type=positive,
        help="pictures to take the mean over (100)",
    )
    parser.add_argument(
        "--input-size",
        nargs=2,
        type=positive,
        metavar=("HEIGHT", "WIDTH"),
        help="count on random pictures of this size; no dataset is read",
    )


def run(arguments: argparse.Namespace) -> int:
    """Count what is asked for.

    Args:
        arguments: as parsed.

    Returns:
        Exit status.

    Raises:
        ConfigError: see `count_model`.
    """
    count_model(arguments, arguments.config, arguments.overrides)
    return 0


def count_model(arguments: argparse.Namespace, config: str, overrides: Sequence[str]) -> None:
    """Run the tasks in the order given, and print what they find.

    Args:
        arguments: ``tasks``, ``num_inputs``, ``input_size`` and ``trust``.
        config: a config file.
        overrides: ``key=value``, as for training.

    Raises:
        ConfigError: it has no model, or no pictures to count on.
    """
    import logging

    from detrex.benchmark.analysis import TASKS
    from detrex.engine.overrides import load_overridden

    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    cfg = load_overridden(config, overrides, arguments.trust)
    for task in arguments.tasks:
        for line in TASKS[task](cfg, _batches(cfg, arguments, task)):
            print(line)


def _batches(cfg: Any, arguments: argparse.Namespace, task: str) -> Iterator[Any]:
    from tqdm import tqdm

    from detrex.benchmark.analysis import input_batches

    count = arguments.num_inputs
    batches = input_batches(cfg, count, arguments.input_size)
    yield from tqdm(batches, desc=task, total=count, unit="picture", disable=None)
