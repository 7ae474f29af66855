"""``detrex data``: what is in a data set, and pictures with their boxes."""

import argparse
import dataclasses
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detrex.cli.arguments import complete_configs, parse_count, typed
from detrex.options import add_trust_option
from detrex.quiet import quiet_logs

_EXAMPLES = """
detrex data dino/demo_shapes.py --pictures 8 --output output/data
detrex data dino/demo_shapes.py --loader --pictures 16
detrex data annotations/instances_val2017.json --images val2017 --pictures 0
detrex data dino/demo_shapes.py --predictions output/demo/shapes/run/coco_instances_results.json
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "data",
        help="count what is in a data set, and draw its pictures with their boxes",
        description="Count images, objects by class and size, and what is wrong; and draw some "
        "pictures with their boxes, masks and keypoints. The data are those of a config or a run's "
        "folder, a JSON file in COCO's format, or a folder in COCO's, YOLO's or Pascal VOC's "
        "format.",
        examples=_EXAMPLES,
    )
    source = parser.add_argument(
        "source", metavar="CONFIG|JSON|FOLDER", help="where the data are named"
    )
    source.completer = complete_configs  # argcomplete reads it
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="as for training"
    )
    add_trust_option(parser)
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="the pictures, where they are not near the JSON"
    )
    parser.add_argument(
        "--pictures",
        type=typed(parse_count, "12"),
        default=12,
        metavar="N",
        help="draw at most N of each set (12)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/data"),
        metavar="DIR",
        help="where pictures go (output/data)",
    )
    parser.add_argument(
        "--loader",
        action="store_true",
        help="draw what the loader feeds to training, after all augmentation",
    )
    parser.add_argument(
        "--predictions",
        metavar="JSON",
        help="draw a run's coco_instances_results.json beside the truth of the test set",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="of predictions that are drawn (0.5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Count, print and draw.

    Args:
        arguments: as parsed.

    Returns:
        Exit status: 1 where a mistake was found or a picture could not be drawn.

    Raises:
        DetrexError: there are no such data.
    """
    from detrex.cli.data_card import inspect_data_sets
    from detrex.errors import ConfigError
    from detrex.inference.result import checked_threshold

    checked_threshold(arguments.threshold)
    # What is found is told by the card.
    with quiet_logs(), tempfile.TemporaryDirectory(prefix="detrex-data-") as scratch:
        cfg, notes = read_source(arguments, Path(scratch))
        cards, mistakes = inspect_data_sets(cfg)
        drawn, failed = _draw(arguments, cfg, [card.side for card in cards])
    if not (cards or mistakes or drawn):
        raise ConfigError(
            f"{arguments.source} names no data set in COCO's format: name a config with "
            "dataloader.train.dataset or dataloader.test.dataset, or --loader to draw its samples."
        )
    mistakes = [_by_source(told, scratch, arguments.source) for told in (*mistakes, *failed)]
    for card in cards:
        card.file = _by_source(card.file, scratch, arguments.source)
        card.mended = [_by_source(told, scratch, arguments.source) for told in card.mended]
    if arguments.json:
        told = {"data": [dataclasses.asdict(card) for card in cards], "notes": notes}
        print(json.dumps({**told, "drawn": drawn, "findings": mistakes}, indent=1))
    else:
        print(_text(cards, notes, drawn, mistakes))
    return 1 if mistakes else 0


def _by_source(told: str, scratch: str, source: str) -> str:
    """Name what the user named, and not the annotations that were written for a while."""
    return re.sub(rf"{re.escape(scratch)}/\w+\.json", lambda _: str(source), told)


def read_source(arguments: argparse.Namespace, scratch: Path) -> tuple[Any, list[str]]:
    """Load a config, or make one of a data set that is named by its files.

    Args:
        arguments: ``source``, ``overrides``, ``trust`` and ``images``.
        scratch: a folder for annotations that are in another format than COCO's.

    Returns:
        The config, and what the user should know.

    Raises:
        DetrexError: there is no such config, file or folder.
    """
    from detrex.cli.runs import config_or_run
    from detrex.config import find_config, load_config
    from detrex.config.listing import SUFFIXES
    from detrex.engine.overrides import apply_overrides
    from detrex.engine.run_folder.identity import RUN_FILE
    from detrex.errors import ConfigError

    source = Path(arguments.source)
    if (source / RUN_FILE).is_file():
        source = config_or_run(arguments.source)[0]
    is_data = source.is_dir() or source.suffix.lower() not in (*SUFFIXES, "")
    if is_data and arguments.overrides:
        arguments.parser.error("key=value changes a config, and is of no use for files of data")
    if is_data and (arguments.loader or arguments.predictions):
        option = "--loader" if arguments.loader else "--predictions"
        arguments.parser.error(f"{option} is for a config or a run's folder, not for files of data")
    if is_data:
        return _files_config(source, arguments.images, scratch)
    if arguments.images:
        arguments.parser.error("--images is for a JSON file: a config names its pictures itself")
    try:
        cfg = load_config(find_config(source), arguments.trust)
    except ConfigError as error:
        if source.suffix:
            raise
        raise ConfigError(
            f"there is no folder {arguments.source}, and no such config: {error}"
        ) from error
    return apply_overrides(cfg, arguments.overrides, arguments.trust), []


def _files_config(source: Path, images: Path | None, scratch: Path) -> tuple[Any, list[str]]:
    from detectron2.config import LazyCall
    from detectron2.data import get_detection_dataset_dicts
    from omegaconf import DictConfig

    from detrex.data.datasets import register_coco_json
    from detrex.project.formats import read_data

    found = read_data(source, images=images)
    sides: dict[str, Any] = {}
    for side, part in zip(("train", "test"), found.parts.values(), strict=False):
        file = part.json_file
        if file is None:  # read from other formats
            file = scratch / f"{side}.json"
            file.write_text(json.dumps(part.content))
        names = LazyCall(register_coco_json)(
            name=f"detrex_data_{side}", json_file=str(file), image_root=str(part.image_root)
        )
        sides[side] = {"dataset": LazyCall(get_detection_dataset_dicts)(names=names)}
    sides["evaluator"] = {}  # without one, the test set is not looked at
    return DictConfig({"dataloader": sides}, flags={"allow_objects": True}), found.notes


def _draw(
    arguments: argparse.Namespace, cfg: Any, sides: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Draw pictures; give the folders that have some, and what could not be drawn."""
    if not arguments.pictures:
        return [], []
    from detrex.cli import data_pictures as pictures
    from detrex.data.predictions import read_predictions

    def drawing(name: str) -> pictures.Drawing:
        return pictures.Drawing(arguments.output / name, "--output", arguments.pictures)

    tried: dict[str, Any] = {}
    if arguments.predictions:
        found = read_predictions(arguments.predictions)
        truth = pictures.Truth.of_config(cfg)
        tried["predictions"] = pictures.draw_predictions(
            found, truth, drawing("predictions"), arguments.threshold
        )
    elif arguments.loader:
        tried["loader"] = pictures.draw_samples(cfg, drawing("loader"))
    else:
        for side in dict.fromkeys(sides):
            tried[side] = pictures.draw_annotations(cfg, drawing(side), side)  # type: ignore[arg-type]
    folders = [str(arguments.output / name) for name in tried]
    return folders, [reason for failures in tried.values() for reason in failures.reasons]


def _text(
    cards: Sequence[Any], notes: Sequence[str], drawn: Sequence[str], mistakes: Sequence[str]
) -> str:
    from detrex.cli.data_card import text_of_cards, text_of_mistakes

    lines = [*text_of_cards(cards), *(f"note: {note}" for note in notes)]
    lines += [f"drawn: {folder}" for folder in drawn]
    if mistakes:
        lines += ["", *text_of_mistakes(mistakes)]
    return "\n".join(lines)
