"""``detrex train``: train a detector, or list the configs that come with the package."""

import argparse
import dataclasses
import json
from typing import Any

from detrex.cli import terminal
from detrex.cli.runs import RUN_FOLDER, add_run_options, config_or_run, run_arguments, show_metrics

_EXAMPLES = """
detrex train --list swin
detrex train dino/dino_r50_4scale_12ep.py --num-gpus 8
detrex train my_config.py train.max_iter=1000 train.device=cpu --output runs/first
detrex train runs/first --resume train.max_iter=2000
detrex train dino/timm_example.py --num-gpus 8 --num-machines 2 --machine-rank 0 \\
    --dist-url tcp://10.0.0.1:29500
"""
_MORE = """
with torchrun:
  torchrun --nproc-per-node 8 -m detrex train dino/dino_r50_4scale_12ep.py

A key=value whose key the config does not have is refused as a misspelling; +key=value adds it.
Exit status: 0; 1 after a mistake; 2 for bad usage; 75 where SIGTERM or SIGUSR1 stopped the run, and
130 after Ctrl-C: --resume continues either.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "train",
        help="train a detector, or list the configs of the package",
        description="Train a detector as a config says, and write checkpoints, logs and metrics "
        "into train.output_dir.",
        examples=_EXAMPLES,
    )
    parser.epilog += f"\n{_MORE.rstrip()}"
    add_run_options(parser, required=False, further=f"{RUN_FOLDER} with --resume")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in the output folder"
    )
    parser.add_argument("--output", metavar="DIR", help="the run's folder, train.output_dir")
    parser.add_argument(
        "--list",
        nargs="?",
        const="",
        metavar="PATTERN",
        help="show the configs of the package: all, or those whose name, detector or backbone fits",
    )
    parser.add_argument("--json", action="store_true", help="with --list: print JSON")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, or list configs.

    Args:
        arguments: as parsed.

    Returns:
        Exit status: 1 where no config fits a pattern.

    Raises:
        DetrexError: for every mistake that the user can mend.
        SystemExit: status 75 or 130 where a signal ended the run; see `detrex.engine.signals`.
    """
    if arguments.list is not None:
        if (arguments.list and arguments.config) or arguments.overrides:
            arguments.parser.error("--list takes one pattern, and no key=value")
        return show_configs(arguments.list or arguments.config or "", arguments.json)
    if arguments.config is None:
        arguments.parser.error("name a config; --list shows those of the package")
    if arguments.json:
        arguments.parser.error("--json belongs to --list")
    config, folder = config_or_run(arguments.config, with_data=True)
    if folder and not arguments.resume:
        arguments.parser.error(f"{folder} is the folder of a run, which --resume continues")
    args = run_arguments(arguments, config, arguments.output or folder)
    args.resume = arguments.resume
    from detrex.engine.command_line import run_parsed, telling_of_signals

    with telling_of_signals():
        run_parsed(args, train)
    return 0


def train(args: argparse.Namespace) -> None:
    """Train in this process, and say at the end where things are.

    Args:
        args: as of `detrex.engine.argument_parser`.
    """
    from detectron2.utils import comm

    from detrex.engine.command_line import main

    show_metrics(main(args))
    if comm.is_main_process():
        print(
            f"The run is in {args.output_dir}: `detrex eval` and `detrex predict` take this folder."
        )


def show_configs(pattern: str, as_json: bool) -> int:
    """Print the configs of the package as a table.

    Args:
        pattern: see `detrex.config.list_configs`.
        as_json: print JSON.

    Returns:
        Exit status: 1 where none fits.
    """
    from detrex.config.listing import list_configs

    cards = list_configs(pattern)
    if as_json:
        rows = [dataclasses.asdict(card) | {"path": str(card.path)} for card in cards]
        print(json.dumps(rows, indent=1))
        return 0 if cards else 1
    columns: dict[str, list[Any]] = {
        "CONFIG": [card.name for card in cards],
        "BOX AP": [card.box_ap for card in cards],
        "MASK AP": [card.mask_ap for card in cards],
        "DETECTOR": [card.detector for card in cards],
        "BACKBONE": [card.backbone for card in cards],
        "TRAINED BY": [card.trained or None for card in cards],
    }
    if not any(columns["MASK AP"]):
        del columns["MASK AP"]
    if cards:
        cells = list(zip(*columns.values(), strict=True))
        terminal.table(list(columns), cells, right=("BOX AP", "MASK AP"))
    print(
        f"{len(cards)} configs. APs are of COCO val2017, as published by whom the last column "
        "names; none was trained again here."
        if cards
        else f"No config fits {pattern!r}; `detrex train --list` shows all of them."
    )
    return 0 if cards else 1
