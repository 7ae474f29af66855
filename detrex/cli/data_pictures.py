"""The pictures of ``detrex data``: annotations, samples of the loader, or truth beside predictions.

Pictures are read as training reads them. Nothing is written over but what was drawn before; one
that cannot be read is named at the end, with exit status 1.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from detectron2.data import Metadata
from detectron2.data.detection_utils import convert_image_to_rgb
from omegaconf import DictConfig
from PIL import Image
from tqdm import tqdm

from detrex.config import require_keys, try_get_key
from detrex.data.class_names import dataset_metadata
from detrex.data.drawing import draw_instances, draw_record, draw_truth_beside_predictions
from detrex.data.pictures import as_uint8, check_image_size, read_image
from detrex.data.predictions import Predictions, check_images, create_instances
from detrex.data.preparation import Side, tolerate_missing_pictures
from detrex.data.tasks import keypoints_wanted, masks_wanted
from detrex.engine.evaluation import build_loader
from detrex.utils.outputs import Failures, make_folder, plan_outputs, save_drawn

Record = dict[str, Any]


@dataclass(frozen=True)
class Drawing:
    """Where pictures go, and how many.

    Attributes:
        folder: for the files.
        option: by which the folder was named, for messages.
        count: pictures at most; None for all.
        show: whether to open a viewer instead of writing files.
    """

    folder: str | Path
    option: str
    count: int | None = None
    show: bool = False

    def put(self, picture: np.ndarray, target: Path) -> None:
        """Write or show one picture.

        Args:
            picture: uint8 RGB ``(H, W, 3)``.
            target: its file.
        """
        if self.show:
            Image.fromarray(picture).show(title=target.name)
        else:
            save_drawn(picture, target)


def draw_annotations(cfg: DictConfig, drawing: Drawing, side: Side = "train") -> Failures:
    """Draw the records of a data set as annotated, with what the config trains on.

    Args:
        cfg: a config.
        drawing: where to, and how many.
        side: of the dataloader.

    Returns:
        What could not be drawn.

    Raises:
        ConfigError: the config has no such data set, or a file would be written over.
    """
    require_keys(cfg, f"dataloader.{side}.dataset")
    tolerate_missing_pictures(cfg, side)
    node = cfg.dataloader[side]
    records = instantiate(node.dataset)
    metadata = dataset_metadata(node.dataset)
    value_range = try_get_key(cfg, f"dataloader.{side}.mapper.value_range")
    drawn = {"masks": masks_wanted(cfg), "keypoints": keypoints_wanted(cfg)}
    targets = [Path(record["file_name"]) for record in records]
    if not drawing.show:
        targets = plan_outputs(targets, drawing.folder)
    make_folder(drawing.folder, drawing.option)
    failures = Failures()

    def draw(record: Record, target: Path) -> None:
        image_rgb = read_image(record["file_name"], "RGB", value_range)
        check_image_size(dict(record), image_rgb)
        drawing.put(draw_record(image_rgb, record, metadata, **drawn), target)

    pairs = list(zip(records, targets, strict=True))[: drawing.count]
    for record, target in tqdm(pairs, unit="picture", disable=None):
        failures.attempt(draw, record, target)
    return failures


def draw_samples(cfg: DictConfig, drawing: Drawing) -> Failures:
    """Draw the samples that the training loader gives, as many as asked for or as records are.

    Args:
        cfg: a config.
        drawing: where to, and how many.

    Returns:
        What could not be drawn.

    Raises:
        ConfigError: as `draw_annotations`.
    """
    require_keys(cfg, "dataloader.train.dataset")
    tolerate_missing_pictures(cfg, "train")
    cfg.dataloader.on_bad_image = "skip"
    loader = build_loader(cfg, "dataloader.train")
    metadata = dataset_metadata(cfg.dataloader.train.dataset)
    count = drawing.count or len(instantiate(cfg.dataloader.train.dataset))
    folder = make_folder(drawing.folder, drawing.option)
    image_format = try_get_key(
        cfg.dataloader.train.mapper, "img_format", "image_format", default="RGB"
    )
    samples = itertools.islice(itertools.chain.from_iterable(loader), count)
    for number, sample in enumerate(tqdm(samples, total=count, unit="picture", disable=None)):
        name = re.sub(r"[^\w.-]", "_", str(sample["image_id"]))
        drawing.put(
            _draw_sample(sample, image_format, metadata), folder / f"{number:05d}_{name}.jpg"
        )
    failures = Failures()
    failures.total += count
    failures.reasons += getattr(loader, "reasons", {}).values()
    return failures


def _draw_sample(sample: Record, image_format: str, metadata: Metadata) -> np.ndarray:
    pixels = sample["image"].permute(1, 2, 0).numpy()
    if image_format != "YUV-BT.601":
        pixels = as_uint8(pixels)
    image_rgb = convert_image_to_rgb(pixels, image_format)
    return draw_instances(image_rgb, sample["instances"], metadata)


@dataclass(frozen=True)
class Truth:
    """A data set that was evaluated.

    Attributes:
        records: detectron2's standard dicts.
        metadata: of the data set.
        value_range: of the pictures' values, None for that of their type.
    """

    records: Sequence[Mapping[str, Any]]
    metadata: Metadata
    value_range: Sequence[float] | None = None

    @classmethod
    def of_config(cls, cfg: DictConfig) -> "Truth":
        """Read the test set of a config.

        Raises:
            ConfigError: it has none.
        """
        require_keys(cfg, "dataloader.test.dataset")
        tolerate_missing_pictures(cfg, "test")
        records = instantiate(cfg.dataloader.test.dataset)
        value_range = try_get_key(cfg, "dataloader.test.mapper.value_range")
        return cls(records, dataset_metadata(cfg.dataloader.test.dataset), value_range)


def draw_predictions(
    predictions: Mapping[Any, Predictions], truth: Truth, drawing: Drawing, threshold: float = 0.5
) -> Failures:
    """Draw the predictions of an evaluation beside the truth, one PNG for each image.

    Args:
        predictions: by image id, as `read_predictions` gives them.
        truth: the data set that was evaluated.
        drawing: where to, and how many.
        threshold: what scores less is left out.

    Returns:
        What could not be drawn.

    Raises:
        ConfigError: they are of another data set, or a file would be written over.
    """
    check_images(predictions, truth.records)
    targets = plan_outputs(
        [record["file_name"] for record in truth.records], drawing.folder, ".png"
    )
    make_folder(drawing.folder, drawing.option)
    failures = Failures()

    def draw(record: Mapping[str, Any], target: Path) -> None:
        size = (record["height"], record["width"])
        found = create_instances(predictions.get(record["image_id"], ()), size, truth.metadata)
        picture = draw_truth_beside_predictions(
            record, found, truth.metadata, threshold, truth.value_range
        )
        drawing.put(picture, target)

    pairs = list(zip(truth.records, targets, strict=True))[: drawing.count]
    for record, target in tqdm(pairs, unit="picture", disable=None):
        failures.attempt(draw, record, target)
    return failures
