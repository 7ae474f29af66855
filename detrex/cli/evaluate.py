"""``detrex eval``: the metrics of a run's checkpoint, or of a config with weights."""

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from detrex.cli.runs import (
    RUN_FOLDER,
    add_run_options,
    choose_checkpoint,
    config_or_run,
    run_arguments,
    show_metrics,
)
from detrex.errors import ConfigError

_EXAMPLES = """
detrex eval runs/first
detrex eval runs/first --weights runs/first/model_0004999.pth --json metrics.json
detrex eval dino/dino_r50_4scale_12ep.py --weights dino_r50_4scale_12ep.pth --num-gpus 8
detrex eval my_config.py --weights model_final.pth train.device=cpu
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "eval",
        help="evaluate a run, or a config with weights",
        description="Evaluate the checkpoint where a run was best, if it kept that, else its last "
        "one, or the weights that are given, on dataloader.test, and print the metrics of each "
        "task.",
        examples=_EXAMPLES,
    )
    add_run_options(parser, further=RUN_FOLDER)
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="a checkpoint; by default the run's best or last, or the config's "
        "train.init_checkpoint",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where log and predictions go, train.output_dir"
    )
    parser.add_argument("--json", metavar="FILE", help="write the metrics to a file, too")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate.

    Args:
        arguments: as parsed.

    Returns:
        Exit status 0.

    Raises:
        DetrexError: for every mistake that the user can mend.
        SystemExit: status 75 or 130 where a signal ended it.
    """
    config, folder = config_or_run(arguments.config, with_data=True)
    args = run_arguments(arguments, config, arguments.output or folder)
    from detrex.engine.command_line import run_parsed, telling_of_signals
    from detrex.engine.overrides import override

    if arguments.json:
        _require_own_metrics(Path(arguments.json))
    args.eval_only = True
    if weights := arguments.weights or (choose_checkpoint(folder) if folder else None):
        args.opts.append(override("train.init_checkpoint", weights))
    with telling_of_signals():
        run_parsed(args, partial(evaluate, file=arguments.json))
    return 0


def _require_own_metrics(file: Path) -> None:
    """Check before the evaluation that its metrics can be written, and over nothing else."""
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder to write {file} to: make it.")
    if not os.path.lexists(file):
        return
    try:
        content = json.loads(file.read_bytes())
        tables = [list(table.values()) for table in content.values()]
    except (OSError, ValueError, AttributeError, RecursionError):
        tables = []
    if not tables or any(not isinstance(value, float | int) for row in tables for value in row):
        raise ConfigError(
            f"{file} exists and holds no metrics of an evaluation, so it is not written over: name "
            "another file by --json, or remove it."
        )


def evaluate(args: argparse.Namespace, file: str | None = None) -> None:
    """Evaluate in this process, and print the metrics in the main one.

    Args:
        args: as of `detrex.engine.argument_parser`.
        file: gets the metrics as JSON.
    """
    from detrex.engine.command_line import main
    from detrex.files import writing_to

    metrics = main(args)
    show_metrics(metrics)
    if file and metrics:
        with writing_to(file, "make room, or name another file by --json"):
            Path(file).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
