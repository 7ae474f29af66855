"""``detrex check``: every mistake of a config that can be seen without data, all at once."""

import argparse
import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detrex.errors import DetrexError, did_you_mean

_EXAMPLES = """examples:
  detrex check configs/dino/dino_r50_4scale_12ep.py
  detrex check configs/dino/timm_example.py model.backbone.model_name=convnext_tiny
  detrex check my_config.py train.output_dir=runs/first --size 640x640
"""


_NEEDED = (
    *("model", "dataloader", "optimizer", "lr_multiplier", "train"),
    *("dataloader.train", "train.device", "train.output_dir", "train.max_iter"),
)


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "check",
        help="build a config's model without weights or data, and list its mistakes",
        description="Build a config's model on PyTorch's meta device, print what it would be, and "
        "list every mistake that can be seen. Nothing is fetched, trained or written.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="a LazyConfig file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for training")
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
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # detectron2 logs what fails, which is told as a finding
    try:
        return _check(arguments)
    finally:
        logging.disable(before)


def _check(arguments: argparse.Namespace) -> int:
    from detrex.cli.catalogue import parse_size
    from detrex.config import load_config

    cfg = load_config(arguments.config)
    findings = list(_override(cfg, arguments.overrides))
    try:
        size = parse_size(arguments.size) if arguments.size else training_size(cfg)
    except ValueError:
        arguments.parser.error(f"--size expects e.g. 800x1333, got {arguments.size!r}")
    findings += static_findings(cfg)
    seen = None
    if "model" in cfg:
        from detrex.cli.dry_run import dry_run

        seen = dry_run(cfg.model, size)
        findings += [finding for finding in seen.findings if finding not in findings]
    if arguments.json:
        facts = dataclasses.asdict(seen) if seen else {}
        print(json.dumps({**facts, "config": arguments.config, "findings": findings}, indent=1))
    else:
        print(text_of(seen, findings))
    return 1 if findings else 0


def static_findings(cfg: Any) -> list[str]:
    """List the mistakes that show before anything is built.

    Args:
        cfg: the whole config.

    Returns:
        One sentence each.
    """
    from detrex.config.lint import check_targets
    from detrex.config.types import check_types

    findings = check_targets(cfg)
    findings += [f for f in check_types(cfg) if f not in findings]
    findings += _missing_parts(cfg)
    findings += _bad_output_dir(cfg)
    findings += _absent_weights(cfg)
    findings += _unknown_datasets(cfg)
    findings += _unlike_evaluator(cfg)
    return findings


def training_size(cfg: Any) -> tuple[int, int]:
    """Give the largest image that the training augmentation makes.

    Args:
        cfg: the whole config.

    Returns:
        Height and width in pixels; 800 x 1333 where no resizing with a shortest and a longest side
        says so, for the pictures themselves are not opened.
    """
    from omegaconf import OmegaConf

    from detrex.cli.dry_run import DEFAULT_SIZE
    from detrex.config.lint import lazy_calls

    mapper = OmegaConf.select(cfg, "dataloader.train.mapper")
    sizes = []
    for _, call in lazy_calls(mapper, ""):
        edge, longest = call.get("short_edge_length"), call.get("max_size")
        if edge is not None and longest is not None:
            sizes.append((int(edge if isinstance(edge, int) else max(edge)), int(longest)))
    return max(sizes, default=DEFAULT_SIZE)


def text_of(seen: Any, findings: list[str]) -> str:
    """Lay out what was seen for a terminal.

    Args:
        seen: a `DryRun`, or None for a config without a model.
        findings: the mistakes.
    """
    lines = []
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
    count = len(findings)
    lines.append(
        f"{count} mistake{'s' if count != 1 else ''} found" if count else "no mistakes found"
    )
    lines += [f"{number:>3}. {finding}" for number, finding in enumerate(findings, start=1)]
    return "\n".join(lines)


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


def _override(cfg: Any, overrides: list[str]) -> Iterator[str]:
    from detrex.engine.overrides import apply_overrides

    for text in overrides:
        try:
            apply_overrides(cfg, [text])
        except DetrexError as error:
            yield str(error)
        except Exception as error:  # a value that the config cannot hold
            yield f"{text} cannot be set: {str(error).splitlines()[0]}"


def _missing_parts(cfg: Any) -> Iterator[str]:
    from detrex.config import try_get_key

    for key in _NEEDED:
        holder = try_get_key(cfg, key.rpartition(".")[0]) if "." in key else cfg
        if holder is not None and try_get_key(cfg, key) is None:
            hint = did_you_mean(key.rpartition(".")[2], [str(name) for name in holder])
            yield f"the config has no {key!r}, which training needs.{hint}"


def _unlike_evaluator(cfg: Any) -> Iterator[str]:
    from detrex.config import try_get_key

    tested = try_get_key(cfg, "dataloader.test.dataset.names")
    evaluated = try_get_key(cfg, "dataloader.evaluator.dataset_name")
    both_names = isinstance(tested, str) and isinstance(evaluated, str)
    if both_names and tested != evaluated:
        yield (
            f"dataloader.evaluator.dataset_name is {evaluated!r}, but dataloader.test loads "
            f'{tested!r}: write "${{..test.dataset.names}}" for the first.'
        )


def _bad_output_dir(cfg: Any) -> Iterator[str]:
    folder = cfg.get("train", {}).get("output_dir")
    if not folder:
        return
    path = Path(folder).expanduser().absolute()
    parent = next(p for p in [path, *path.parents] if p.exists())
    if not parent.is_dir():
        yield f"train.output_dir {folder} cannot be a folder, for {parent} is a file: name another."
    elif not os.access(parent, os.W_OK):
        yield f"train.output_dir {folder} cannot be written to: {parent} is not yours to write."


def _absent_weights(cfg: Any) -> Iterator[str]:
    from detrex.checkpoint.download import is_address
    from detrex.config.lint import lazy_calls
    from detrex.modeling.backbone.weights import WEIGHT_FILES

    named = {"train.init_checkpoint": cfg.get("train", {}).get("init_checkpoint")}
    for path, call in lazy_calls(cfg.get("model"), "model"):
        named |= {f"{path}.{key}": call.get(key) for key in ("weights", "checkpoint_path")}
    for key, value in named.items():
        text = value.partition("?")[0] if isinstance(value, str) else ""
        is_path = text.endswith(WEIGHT_FILES) and not is_address(text)
        if is_path and not Path(text).expanduser().is_file():
            yield f"{key} is {text!r}, which does not exist: correct the path."


def _unknown_datasets(cfg: Any) -> Iterator[str]:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from omegaconf import DictConfig, ListConfig, OmegaConf

    for side in ("train", "test"):
        names = OmegaConf.select(cfg, f"dataloader.{side}.dataset.names", default=None)
        where = f"dataloader.{side}.dataset.names"
        if isinstance(names, DictConfig):
            for key in ("json_file", "image_root"):
                path = names.get(key)
                if path and not Path(path).expanduser().exists():
                    yield f"{where}: {key} is {path}, which does not exist."
            continue
        for name in names if isinstance(names, ListConfig) else filter(None, [names]):
            if name not in DatasetCatalog.list():
                hint = did_you_mean(name, DatasetCatalog.list())
                yield (
                    f"{where} asks for {name!r}, which is not registered.{hint} Data of your own: "
                    "L(register_coco_json)(name=..., json_file=..., image_root=...)."
                )
                continue
            file = MetadataCatalog.get(name).get("json_file")
            if file and not Path(file).exists():
                yield (
                    f"{where}: the annotations of {name!r} are expected at {file}, where nothing "
                    "is: put them there, or set DETECTRON2_DATASETS to the folder above coco/."
                )
