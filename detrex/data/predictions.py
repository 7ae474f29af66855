"""The detections of a COCO results file, as the drawing of pictures takes them."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, BoxMode, Instances

from detrex.errors import ConfigError

Predictions = Sequence[Mapping[str, Any]]


def create_instances(
    predictions: Predictions, image_size: tuple[int, int], metadata: Metadata
) -> Instances:
    """Turn one image's rows of a COCO results file into detectron2's ``Instances``.

    Args:
        predictions: rows with ``bbox`` (x, y, width, height), ``category_id`` and ``score``, and
            all or none with ``segmentation`` (run lengths) and ``keypoints``.
        image_size: height and width in pixels.
        metadata: of the dataset; ``thing_dataset_id_to_contiguous_id`` maps the categories.

    Returns:
        ``pred_boxes``, ``pred_classes`` (contiguous) and ``scores``, ``pred_masks`` and
        ``pred_keypoints`` where the rows have them.

    Raises:
        ConfigError: a category is none of the dataset's.
    """
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id", None)
    unknown = {p["category_id"] for p in predictions} - set(contiguous or ())
    if contiguous and unknown:
        raise ConfigError(
            f"the detections are of category {min(unknown)}, but the dataset's categories "
            f"are {_listed(contiguous)}: name the dataset that was evaluated."
        )
    boxes = np.array([p["bbox"] for p in predictions], dtype=np.float32).reshape(-1, 4)
    categories = [p["category_id"] for p in predictions]
    found = Instances(
        image_size,
        pred_boxes=Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)),
        pred_classes=torch.tensor(
            [contiguous[c] if contiguous else c for c in categories], dtype=torch.int64
        ),
        scores=torch.tensor([p["score"] for p in predictions]),
    )
    if predictions and all("segmentation" in p for p in predictions):
        masks = [mask_util.decode(p["segmentation"]) for p in predictions]
        found.pred_masks = torch.from_numpy(np.stack(masks)).bool()
    if predictions and all("keypoints" in p for p in predictions):
        points = torch.tensor([p["keypoints"] for p in predictions]).view(len(predictions), -1, 3)
        # COCO counts the pixel that a keypoint is in; detectron2 takes that pixel's middle.
        found.pred_keypoints = points + torch.tensor([0.5, 0.5, 0])
    return found


def read_predictions(path: str) -> dict[Any, list[Mapping[str, Any]]]:
    """Read a COCO results file.

    Args:
        path: a list of rows with ``image_id``, ``category_id``, ``bbox`` and ``score``.

    Returns:
        The rows of each image id.

    Raises:
        ConfigError: the file is missing, or something else.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"{path} is no regular file: name a JSON file.")
    try:
        rows = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): name a run's coco_instances_results.json."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON ({error}): evaluate once more.") from error
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    needed = {"image_id", "category_id", "bbox", "score"}
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, dict) or not needed <= row.keys():
            raise ConfigError(
                f"{path} holds something else than rows with {', '.join(sorted(needed))}: "
                "name a run's coco_instances_results.json."
            )
        if not _is_detection(row):
            raise ConfigError(
                f"{path} has the row {str(row)[:150]}, expected ids that are numbers or "
                "texts, bbox of four finite numbers and a number for score: evaluate once more."
            )
        by_image[row["image_id"]].append(row)
    return by_image


def _is_detection(row: Mapping[str, Any]) -> bool:
    box = row["bbox"]
    numbers = [*box, row["score"]] if isinstance(box, list) else []
    ids = row["image_id"], row["category_id"]
    return (
        len(numbers) == 5
        and all(type(n) in (int, float) and abs(n) < 1e9 for n in numbers)
        and all(isinstance(key, int | str) for key in ids)
    )


def check_images(predictions: Mapping[Any, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Check that the predictions are for a dataset's images.

    Raises:
        ConfigError: some are for an image that it has not.
    """
    known = {record["image_id"] for record in records}
    unknown = [image for image in predictions if image not in known]
    if unknown:
        raise ConfigError(
            f"the detections are for {len(unknown)} images that the dataset has not, such as image "
            f"id {unknown[0]}: name the dataset that was evaluated."
        )


def _listed(ids: Iterable[Any], limit: int = 8) -> str:
    ids = list(ids)
    return ", ".join(map(str, ids[:limit])) + (", ..." if len(ids) > limit else "")
