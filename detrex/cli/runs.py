"""What commands share that make a run or take one: options, its folder, its metrics as a table."""

import argparse
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detrex.cli import terminal
from detrex.cli.arguments import add_config_arguments

_MOST_COLUMNS = 9  # metrics of a task by class are many


RUN_FOLDER = ", or a run's folder"
"""For the help of commands that take one in the place of a config."""


def add_run_options(
    parser: argparse.ArgumentParser, required: bool = True, further: str = ""
) -> None:
    """Add a config with its overrides, and where the run's processes are.

    Args:
        parser: the command's.
        required: whether the config must be named.
        further: what else may stand there, for the help.
    """
    add_config_arguments(parser, required, further)
    places = parser.add_argument_group("processes")
    places.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="processes on this machine; on CPU too"
    )
    places.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines")
    places.add_argument(
        "--machine-rank", type=int, default=0, metavar="N", help="this machine, from 0"
    )
    places.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="where the machines meet, tcp://ADDRESS:PORT of the first",
    )


def run_arguments(
    arguments: argparse.Namespace, config: Path, output: str | Path | None
) -> argparse.Namespace:
    """Give a command's options as a run takes them.

    Args:
        arguments: with the options of `add_run_options`.
        config: its file.
        output: the run's folder in the place of the config's, if any.

    Returns:
        What `detrex.engine.argument_parser` would give, neither resuming nor evaluating only.
    """
    from detrex.engine.overrides import override

    further = [override("train.output_dir", output)] if output else []
    return argparse.Namespace(
        config_file=str(config),
        resume=False,
        eval_only=False,
        num_gpus=arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        trust=arguments.trust,
        opts=[*arguments.overrides, *further],
    )


def config_or_run(name: str, *, with_data: bool = False) -> tuple[Path, Path | None]:
    """Find the config that a user names, by itself or by the folder of a run.

    Args:
        name: a run's folder, a config's file, or a config of the package.
        with_data: whether a shared detector's folder, which comes without, is refused.

    Returns:
        The config's file, and the run's folder where it is one.

    Raises:
        ConfigError: there is no such config, or the folder is not that of a run.
    """
    from detrex.config.listing import find_config
    from detrex.errors import ConfigError

    folder = Path(name)
    if not name or not os.path.isdir(folder):
        return find_config(name), None
    file = folder / "config.yaml"
    if not file.is_file():
        from detrex.inference.finding import run_below

        raise ConfigError(
            f"{folder} holds no config.yaml, as the folder of a run does: name that folder, or a "
            f"config.{run_below(folder)}"
        )
    if with_data:
        from detrex.inference.pretrained import WEIGHTS, is_pretrained

        if is_pretrained(folder):
            raise ConfigError(
                f"{folder} is a shared detector, which comes without data: name a config that has "
                f"some, and {folder / WEIGHTS} by --weights or train.init_checkpoint."
            )
    return file, folder


def choose_checkpoint(folder: Path) -> str:
    """Choose a run's checkpoint as `detrex.load` does, and tell it; or a shared detector's weights.

    Args:
        folder: the run's, or the detector's.

    Returns:
        Where the run was best, if it kept that, else its last.

    Raises:
        CheckpointError: the folder holds none.
    """
    from detrex.errors import CheckpointError
    from detrex.inference.finding import choice_of, run_checkpoints
    from detrex.inference.pretrained import WEIGHTS, is_pretrained

    if is_pretrained(folder):
        return str(folder / WEIGHTS)
    found = run_checkpoints(folder)
    if not found:
        raise CheckpointError(
            f"{folder} holds no checkpoint of its run: train it further, or name one by --weights."
        )
    print(choice_of(found[0]), file=sys.stderr)
    return found[0]


def tell_choice(detector: Any, weights: str | None) -> None:
    """Say on the error stream which of its run's checkpoints a detector has, and why.

    Args:
        detector: a `detrex.inference.Detector`; of one that is not a run's nothing is said.
        weights: the checkpoint that the user named, of which nothing is said either.
    """
    from detrex.inference.finding import choice_of

    if detector.checkpoint and not weights and os.path.isdir(detector.origin):
        print(choice_of(detector.checkpoint), file=sys.stderr)


def show_metrics(metrics: Mapping[str, Any] | None) -> None:
    """Print a table of an evaluation, one row for each task.

    Args:
        metrics: ``{task: {metric: number}}``; nothing is printed where it is empty, as it is in all
            processes but the main one.
    """
    tasks = {
        task: values for task, values in (metrics or {}).items() if isinstance(values, Mapping)
    }
    columns = list(dict.fromkeys(name for values in tasks.values() for name in values))
    columns = [name for name in columns if not name.startswith("AP-")][:_MOST_COLUMNS]
    if columns:
        rows = [(task, *(_number(v.get(name)) for name in columns)) for task, v in tasks.items()]
        terminal.table(["TASK", *columns], rows, right=columns)


def _number(value: Any) -> str | None:
    return None if value is None or math.isnan(float(value)) else f"{float(value):.2f}"
