"""``detrex check``: every mistake of a config that can be seen, of its data too, all at once."""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from detrex.cli.arguments import add_config_arguments
from detrex.cli.runs import RUN_FOLDER, config_or_run
from detrex.errors import DetrexError
from detrex.quiet import quiet_logs

_EXAMPLES = """
detrex check dino/dino_r50_4scale_12ep.py
detrex check dino/timm_example.py model.backbone.model_name=convnext_tiny
detrex check my_config.py train.output_dir=runs/first --size 640x640
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "check",
        help="build a config's model without weights, read its data, and list all mistakes",
        description="Build a config's model on PyTorch's meta device, print what it would be, and "
        "list every mistake that can be seen. The annotations are read, "
        "the pictures looked for. Nothing is fetched, trained or written.",
        examples=_EXAMPLES,
    )
    add_config_arguments(parser, further=RUN_FOLDER)
    parser.add_argument("--size", metavar="HEIGHTxWIDTH", help="the training image")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Check a config and print what was seen.

    Args:
        arguments: as parsed.

    Returns:
        Exit status: 1 where a mistake was found.

    Raises:
        ConfigError: there is no such config, or it does not run.
    """
    with quiet_logs():  # detectron2 logs what fails, which is told as a finding
        return _check(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from detrex.cli.arguments import parse_size
    from detrex.config import load_config
    from detrex.config.frozen_weights import frozen_without_weights
    from detrex.config.validation import misspelt_keys
    from detrex.engine.dry_run import training_size

    cfg = load_config(config_or_run(arguments.config)[0], arguments.trust)
    findings = static_findings(cfg, arguments.overrides, arguments.trust)
    try:
        size = parse_size(arguments.size) if arguments.size else training_size(cfg)
    except ValueError:
        arguments.parser.error(f"--size expects e.g. 800x1333, got {arguments.size!r}")
    cards, mistakes = _data(cfg, findings)
    findings += mistakes
    seen = _dry_run(cfg, size)
    findings += [finding for finding in seen.findings if finding not in findings] if seen else []
    remarks = [*misspelt_keys(cfg), *_remarks_on_images(cfg), *frozen_without_weights(cfg)]
    if arguments.json:
        data = [dataclasses.asdict(card) for card in cards]
        told = {"config": arguments.config, "data": data, "remarks": remarks, "findings": findings}
        print(json.dumps({**(dataclasses.asdict(seen) if seen else {}), **told}, indent=1))
    else:
        print(text_of(seen, findings, remarks, cards))
    return 1 if findings else 0


def static_findings(
    cfg: Any, overrides: Sequence[str] = (), trusted: Sequence[str] = ()
) -> list[str]:
    """List the mistakes that show before anything is built; a run refuses the same.

    Args:
        cfg: the whole config, which gets the overrides that can be set.
        overrides: ``key=value``, as for training.
        trusted: packages that they may call beside those of `detrex.config.trust`.

    Returns:
        One sentence each.
    """
    from detrex.config.leftovers import drop_leftovers
    from detrex.engine.preflight import find_mistakes

    findings = list(_override(cfg, overrides, trusted))
    return findings + find_mistakes(drop_leftovers(cfg))


def _data(cfg: Any, findings: Sequence[str]) -> tuple[list[Any], list[str]]:
    """What is in the data sets and their mistakes, where the config itself lets them be read."""
    from detrex.cli.data_card import inspect_data_sets

    return ([], []) if any("dataloader" in text for text in findings) else inspect_data_sets(cfg)


def _remarks_on_images(cfg: Any) -> list[str]:
    """Where images are not as the backbone's weights expect them."""
    from detrex.config.pixel_statistics import pixel_statistics_warnings

    try:
        return pixel_statistics_warnings(cfg)
    except DetrexError:
        return []  # a backbone that cannot be built, which the dry run tells


def _dry_run(cfg: Any, size: tuple[int, int] | None) -> Any:
    from detrex.config.lazy_call import is_call
    from detrex.config.validation import peek
    from detrex.engine.dry_run import dry_run

    model = peek(cfg, "model")
    return dry_run(model, size) if is_call(model) else None


def text_of(
    seen: Any, findings: list[str], remarks: Sequence[str] = (), cards: Sequence[Any] = ()
) -> str:
    """Lay out what was seen for a terminal.

    Args:
        seen: a `DryRun`, or None for a config without a model.
        findings: the mistakes.
        remarks: what may be one.
        cards: a `SetCard` for each data set.
    """
    from detrex.cli.data_card import text_of_cards, text_of_mistakes

    lines = []
    if cards:
        lines += ["data", *(f"  {line}" for line in text_of_cards(cards)), ""]
    if seen is not None:
        height, width = seen.size
        blocks = {
            f"backbone, for an image of {height} x {width}": seen.levels,
            "neck": seen.neck,
            "frozen": seen.frozen.split("\n") if seen.frozen else [],
            "parameters": [
                f"{name:<20} {total:>13,}  trainable {trainable:>13,}"
                for name, (total, trainable) in seen.parameters.items()
            ],
            "cost of one image": _cost(seen),
            "left out": seen.notes,
        }
        for title, block in blocks.items():
            if block:
                lines += [title, *(f"  {line}" for line in block), ""]
    if remarks:
        lines += ["remarks", *(f"  {remark}" for remark in remarks), ""]
    return "\n".join([*lines, *text_of_mistakes(findings)])


def _cost(seen: Any) -> list[str]:
    lines = []
    if seen.gflops is not None:
        lines.append(
            f"{seen.gflops:.1f} GFLOPs forward (multiply-adds of convolutions and matrices)"
        )
    if seen.activation_bytes is not None:
        lines.append(
            f"{seen.activation_bytes / 2**20:,.0f} MiB of activations for the backward pass, in "
            "float32; losses not counted"
        )
    return lines


def _override(cfg: Any, overrides: Sequence[str], trusted: Sequence[str]) -> Iterator[str]:
    from detrex.engine.overrides import apply_overrides

    for text in overrides:
        try:
            apply_overrides(cfg, [text], trusted)
        except DetrexError as error:
            yield str(error)
