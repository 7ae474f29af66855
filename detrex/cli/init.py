"""``detrex init``: a project from a folder of labelled pictures."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detrex.cli.completion import complete_backbones

_EXAMPLES = """
detrex init my_project --data pictures/
detrex init my_project --data train.json --val val.json --detector mask_rcnn --weights none
detrex init my_project --data VOCdevkit/VOC2012 --detector retinanet --size 640 --epochs 20
"""
_DETECTORS = ("dino", "mask_rcnn", "retinanet", "fcos")


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "init",
        help="start a project: a config for labelled pictures of your own",
        description="Recognise labelled pictures (COCO's JSON, YOLO's text files, Pascal VOC's "
        "XML), check them, and write a config that trains a detector on them. The pictures and "
        "labels stay where and as they are.",
        examples=_EXAMPLES,
    )
    parser.add_argument("project", metavar="PROJECT", type=Path, help="the folder to be made")
    _add_data_arguments(parser)
    parser.add_argument("--detector", choices=_DETECTORS, default="dino", help="dino by default")
    backbone = parser.add_argument(
        "--backbone",
        default="resnet50",
        metavar="NAME",
        help="of timm or torchvision (`detrex backbones` searches them); resnet50 by default",
    )
    backbone.completer = complete_backbones  # argcomplete
    parser.add_argument(
        "--weights",
        default="auto",
        metavar="auto|none|FILE",
        help="of the backbone: the library's by default",
    )
    rule = parser.add_argument_group("in the place of what the data suggest")
    rule.add_argument("--size", type=int, metavar="N", help="shorter side of a picture in pixels")
    rule.add_argument("--epochs", type=int, metavar="N", help="passes over the pictures")
    rule.add_argument("--batch-size", type=int, metavar="N", help="pictures to an iteration")
    rule.add_argument("--seed", type=int, default=0, metavar="N", help="of what is held back")
    parser.set_defaults(run=run, parser=parser)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FOLDER|FILE",
        help="a folder of pictures with their labels, a JSON file of COCO's, or a data.yaml",
    )
    parser.add_argument(
        "--val",
        type=Path,
        metavar="FOLDER|FILE",
        help="the same for validation; without it the data's own part for it is taken, or 15 %% "
        "are held back",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="the pictures, where a JSON file does not lead to them",
    )
    parser.add_argument(
        "--format",
        choices=["auto", "coco", "yolo", "voc"],
        default="auto",
        help="of the labels; auto by default",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the project, and print what it is and how to go on.

    Args:
        arguments: as parsed.

    Returns:
        Exit status: 1 where the data have a mistake that a run would refuse.

    Raises:
        DetrexError: an argument or the data are wrong; nothing is written then.
    """
    from detrex.cli.data_card import inspect_data_sets, text_of_cards
    from detrex.cli.terminal import status
    from detrex.config import load_config
    from detrex.project import create_project
    from detrex.quiet import quiet_logs

    with status("reading the data"), quiet_logs():  # findings are in the cards
        project = create_project(
            arguments.project,
            arguments.data,
            val=arguments.val,
            images=arguments.images,
            form=arguments.format,
            backbone=arguments.backbone,
            weights=arguments.weights,
            detector=arguments.detector,
            size=arguments.size,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
        )
        cards, mistakes = inspect_data_sets(load_config(project.config))
    print("\n".join(["data", *(f"  {line}" for line in text_of_cards(cards)), ""]))
    print("\n".join(_lines(project, arguments.detector)))
    for mistake in mistakes:
        print(f"detrex: {mistake}", file=sys.stderr)
    return 1 if mistakes else 0


def _lines(project: Any, detector: str) -> Iterator[str]:
    schedule, machine = project.schedule, project.machine
    device = f"a card of {machine.memory:.0f} GiB" if machine.device == "cuda" else "the processor"
    told = {
        "detector": f"{detector} over {project.backbone.name} of {project.backbone.entry.library}",
        "weights": project.backbone.told(),
        "pictures": f"shorter side {schedule.size} pixels, longer at most {schedule.longest}",
        "training": f"{schedule.iterations} iterations of {schedule.batch_size} pictures "
        f"({schedule.epochs} passes over the data) on {device}",
        "learning rate": f"{schedule.learning_rate:g}, a tenth from iteration {schedule.drop} on; "
        f"evaluated every {schedule.eval_period}",
    }
    yield "project"
    yield from (f"  {key:<14}{text}" for key, text in told.items())
    if project.notes:
        yield from ("", "notes", *(f"  {note}" for note in project.notes))
    config, output = shlex.quote(str(project.config)), project.folder / "output"
    found = shlex.quote(str(project.folder / "predictions"))
    yield from ("", f"{project.config} is written, and yours to change. Go on with", "")
    yield f"  detrex check {config}"
    yield f"  detrex train {config}"
    yield (
        f"  detrex predict {shlex.quote(str(output))} {shlex.quote(str(project.pictures))} "
        f"--output {found}"
    )
