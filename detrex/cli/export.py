"""``detrex export``: a detector or a backbone as a file that other programs run."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from detrex.cli.arguments import add_config_arguments
from detrex.cli.runs import RUN_FOLDER, choose_checkpoint, config_or_run

_EXAMPLES = """
detrex export runs/first --output detector.onnx
detrex export dino/dino_r50_4scale_12ep.py --weights model_final.pth --output dino.onnx
detrex export my_config.py --format openvino --output dino.xml --uint8
detrex export my_config.py --part backbone --format torch-export --output backbone.pt2
detrex export my_config.py --output dino.onnx --size 480x640 800x1333
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "export",
        help="write a config's detector or backbone as ONNX, torch.export or OpenVINO",
        description="Write a config's detector, or its backbone, to a file that takes images of "
        "any height and width. The file is run at several sizes and compared with the model; one "
        "that differs is not kept.",
        examples=_EXAMPLES,
    )
    add_config_arguments(parser, further=RUN_FOLDER)
    parser.add_argument("--output", required=True, metavar="FILE", help="what to write")
    parser.add_argument("--format", default="onnx", help="onnx (default), torch-export, openvino")
    parser.add_argument("--part", default="detector", help="detector (default) or backbone")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="a checkpoint; by default the run's best or last, or train.init_checkpoint",
    )
    parser.add_argument(
        "--size",
        nargs="+",
        action="extend",
        default=[],
        metavar="HEIGHTxWIDTH",
        help="images to compare the file and the model on",
    )
    parser.add_argument(
        "--uint8", action="store_true", help="a detector's image is uint8 and not float32"
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Export a config's model and say how far the file is from it.

    Args:
        arguments: as parsed.

    Returns:
        Exit status 0.

    Raises:
        DetrexError: the config, the weights or the model cannot be used, or the file would differ
            from the model.
    """
    from detrex.cli.arguments import parse_size
    from detrex.export import SIZES, export_model
    from detrex.export.exporting import target_of

    try:
        sizes = [parse_size(size) for size in arguments.size] or SIZES
    except ValueError:
        arguments.parser.error(f"--size expects e.g. 480x640, got {' '.join(arguments.size)}")
    target_of(arguments.output, arguments.format)
    model, names = _built(arguments)
    with _progress():
        report = export_model(
            model,
            arguments.output,
            arguments.format,
            part=arguments.part,
            sizes=sizes,
            uint8=arguments.uint8,
            class_names=names,
        )
    for file in report.files:
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
    print(f"input image ({report.description['dtype']}): {report.description['input']}")
    print(f"outputs {', '.join(report.description['outputs'])}")
    for (height, width), apart in report.differences.items():
        print(f"{height} x {width}: differs from the model by at most {apart:.1e}")
    return 0


def _built(arguments: argparse.Namespace) -> tuple[Any, Sequence[str]]:
    """Build the model that is evaluated and predicts, and tell its classes' names."""
    from detrex.config import load_config, try_get_key
    from detrex.engine.exporting import build_for_export
    from detrex.engine.overrides import apply_overrides
    from detrex.inference.finding import find_source
    from detrex.inference.loading import build_detector
    from detrex.inference.pretrained import is_pretrained
    from detrex.inference.source import Source

    config, folder = config_or_run(arguments.config)
    overrides, trust, weights = arguments.overrides, arguments.trust, arguments.weights
    if folder and is_pretrained(folder) and not weights:
        found = find_source(folder, trusted=trust)
    else:
        cfg = apply_overrides(load_config(config, trust), overrides, trust)
        weights = weights or (choose_checkpoint(folder) if folder else None)
        weights = weights or try_get_key(cfg, "train.init_checkpoint", default="")
        if not weights and arguments.part != "backbone":
            print("weights: none, the detector has learnt nothing (--weights)", file=sys.stderr)
        if not weights or (arguments.part == "backbone" and not folder):
            return build_for_export(config, overrides, weights, trust)
        found, overrides = Source(cfg, (weights,), str(config)), ()
    detector = build_detector(found, device="cpu", optimize=False, overrides=overrides, trust=trust)
    return detector.model, detector.class_names


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    """Tell on the error stream what is being done, with the time of day."""
    log, handler = logging.getLogger("detrex.export"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
