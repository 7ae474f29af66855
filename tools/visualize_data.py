"""Draw what a config feeds to training: the annotations as they are, or after all augmentation.

python tools/visualize_data.py --source annotation --config-file CONFIG --output-dir output/look
python tools/visualize_data.py --source dataloader --config-file CONFIG --output-dir output/look

Pictures are read as training reads them. Nothing is written over but what was drawn before; a
picture that cannot be read is named at the end, with exit status 1.
"""

from detrex.threads import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported, which reads them once

import argparse
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from detectron2.data import Metadata
from detectron2.data.detection_utils import convert_image_to_rgb
from omegaconf import DictConfig
from PIL import Image
from tqdm import tqdm

from detrex.config import load_config, require_keys, try_get_key
from detrex.data.class_names import dataset_metadata
from detrex.data.drawing import draw_instances, draw_record
from detrex.data.pictures import as_uint8, check_image_size, read_image
from detrex.data.preparation import tolerate_missing_pictures
from detrex.data.tasks import keypoints_wanted, masks_wanted
from detrex.engine.evaluation import build_loader
from detrex.engine.overrides import apply_overrides
from detrex.errors import run_tool
from detrex.options import add_trust_option
from detrex.utils.outputs import Failures, make_folder, plan_outputs, positive, save_drawn

Record = dict[str, Any]


def draw_annotations(args: argparse.Namespace, cfg: DictConfig, failures: Failures) -> None:
    """Draw the records of the training set as annotated, with what the config trains on."""
    records = instantiate(cfg.dataloader.train.dataset)
    metadata = dataset_metadata(cfg.dataloader.train.dataset)
    value_range = try_get_key(cfg, "dataloader.train.mapper.value_range")
    drawn = {"masks": masks_wanted(cfg), "keypoints": keypoints_wanted(cfg)}
    targets = [Path(record["file_name"]) for record in records]
    if not args.show:
        targets = plan_outputs(targets, args.output_dir)
    make_folder(args.output_dir, "--output-dir")

    def draw(record: Record, target: Path) -> None:
        image_rgb = read_image(record["file_name"], "RGB", value_range)
        check_image_size(dict(record), image_rgb)
        _put(draw_record(image_rgb, record, metadata, **drawn), target, args.show)

    pairs = list(zip(records, targets, strict=True))[: args.num_images]
    for record, target in tqdm(pairs, unit="picture", disable=None):
        failures.attempt(draw, record, target)


def draw_samples(args: argparse.Namespace, cfg: DictConfig, failures: Failures) -> None:
    """Draw the samples that the training loader gives, as many as asked for or as records are."""
    cfg.dataloader.on_bad_image = "skip"
    loader = build_loader(cfg, "dataloader.train")
    metadata = dataset_metadata(cfg.dataloader.train.dataset)
    count = args.num_images or len(instantiate(cfg.dataloader.train.dataset))
    folder = make_folder(args.output_dir, "--output-dir")
    image_format = try_get_key(
        cfg.dataloader.train.mapper, "img_format", "image_format", default="RGB"
    )
    samples = itertools.islice(itertools.chain.from_iterable(loader), count)
    for number, sample in enumerate(tqdm(samples, total=count, unit="picture", disable=None)):
        name = re.sub(r"[^\w.-]", "_", str(sample["image_id"]))
        picture = _draw_sample(sample, image_format, metadata)
        _put(picture, folder / f"{number:05d}_{name}.jpg", args.show)
    reasons = getattr(loader, "reasons", {})
    failures.total += count
    failures.reasons += reasons.values()


def _draw_sample(sample: Record, image_format: str, metadata: Metadata) -> np.ndarray:
    pixels = sample["image"].permute(1, 2, 0).numpy()
    if image_format != "YUV-BT.601":
        pixels = as_uint8(pixels)
    image_rgb = convert_image_to_rgb(pixels, image_format)
    return draw_instances(image_rgb, sample["instances"], metadata)


def _put(picture: np.ndarray, target: Path, show: bool) -> None:
    if show:
        Image.fromarray(picture).show(title=target.name)
    else:
        save_drawn(picture, target)


SOURCES = {"annotation": draw_annotations, "dataloader": draw_samples}


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", choices=SOURCES, required=True, help="draw annotations, or loaded samples"
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a lazy config")
    parser.add_argument(
        "--output-dir", "--output_dir", default="./", metavar="DIR", help="where pictures go (./)"
    )
    parser.add_argument(
        "-n",
        "--num-images",
        type=positive,
        help="stop after so many pictures (as many as the dataset has)",
    )
    parser.add_argument(
        "--show", action="store_true", help="open a viewer instead of writing files"
    )
    add_trust_option(parser)
    parser.add_argument("opts", nargs="*", default=[], help="overrides such as train.device=cpu")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the pictures and write them, or show them one by one.

    Raises:
        SystemExit: status 1 when a picture could not be read; the others are drawn.
    """
    args = argument_parser().parse_intermixed_args(arguments)
    cfg = apply_overrides(load_config(args.config_file, args.trust), args.opts, args.trust)
    require_keys(cfg, "dataloader.train.dataset")
    tolerate_missing_pictures(cfg, "train")
    failures = Failures()
    SOURCES[args.source](args, cfg, failures)
    failures.end()


if __name__ == "__main__":
    run_tool(main, OSError)
