"""Draw the predictions of an evaluation beside the truth.

python tools/visualize_json_results.py --input RUN/coco_instances_results.json --output output/look
... --dataset coco_2017_val                  for a dataset that detectron2 has registered
... --config-file CONFIG [key=value ...]     for the dataset of dataloader.test in a config

Nothing is written over but what was drawn before; a picture that cannot be read is named at the
end, with exit status 1.
"""

from detrex.threads import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported, which reads them once

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from tqdm import tqdm

from detrex.config import load_config, require_keys, try_get_key
from detrex.data.class_names import dataset_metadata
from detrex.data.drawing import draw_truth_beside_predictions
from detrex.data.preparation import tolerate_missing_pictures
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError, did_you_mean, run_tool
from detrex.options import add_trust_option
from detrex.utils.outputs import Failures, make_folder, plan_outputs, positive, save_drawn

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
            f"--input holds detections of category {min(unknown)}, but the dataset's categories "
            f"are {_listed(contiguous)}: name the dataset that was evaluated by --config-file or "
            "--dataset."
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
        raise ConfigError(f"--input {path} is no regular file: name a JSON file.")
    try:
        rows = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(
            f"--input {path} cannot be read ({error.strerror}): name a run's "
            "coco_instances_results.json."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--input {path} is no JSON ({error}): evaluate once more.") from error
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    needed = {"image_id", "category_id", "bbox", "score"}
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, dict) or not needed <= row.keys():
            raise ConfigError(
                f"--input {path} holds something else than rows with {', '.join(sorted(needed))}: "
                "name a run's coco_instances_results.json."
            )
        if not _is_detection(row):
            raise ConfigError(
                f"--input {path} has the row {str(row)[:150]}, expected ids that are numbers or "
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


def load_dataset(
    args: argparse.Namespace,
) -> tuple[list[dict[str, Any]], Metadata, Sequence[float] | None]:
    """Return records, metadata and value range of ``--config-file``'s test set or ``--dataset``."""
    if args.config_file:
        cfg = apply_overrides(load_config(args.config_file, args.trust), args.opts, args.trust)
        require_keys(cfg, "dataloader.test.dataset")
        tolerate_missing_pictures(cfg, "test")
        records = instantiate(cfg.dataloader.test.dataset)
        value_range = try_get_key(cfg, "dataloader.test.mapper.value_range")
        return records, dataset_metadata(cfg.dataloader.test.dataset), value_range
    if args.dataset not in DatasetCatalog:
        raise ConfigError(
            f"--dataset {args.dataset} is not registered with detectron2: name a registered one, "
            "or the config that registers it by --config-file."
            + did_you_mean(args.dataset, DatasetCatalog.list())
        )
    return DatasetCatalog.get(args.dataset), MetadataCatalog.get(args.dataset), None


def check_images(predictions: Mapping[Any, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Check that the predictions are for a dataset's images.

    Raises:
        ConfigError: some are for an image that it has not.
    """
    known = {record["image_id"] for record in records}
    unknown = [image for image in predictions if image not in known]
    if unknown:
        raise ConfigError(
            f"--input holds detections for {len(unknown)} images that the dataset has not, such as "
            f"image id {unknown[0]}: name the dataset that was evaluated by --config-file or "
            "--dataset."
        )


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="coco_instances_results.json of a run"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="where pictures go")
    parser.add_argument("--dataset", default="coco_2017_val", help="a registered dataset")
    parser.add_argument("--config-file", metavar="FILE", help="a lazy config, instead of --dataset")
    parser.add_argument(
        "--conf-threshold", default=0.5, type=float, help="leave out what scores less (0.5)"
    )
    parser.add_argument("-n", "--num-images", type=positive, help="stop after so many pictures")
    add_trust_option(parser)
    parser.add_argument("opts", nargs="*", default=[], help="overrides of the config")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one PNG per image of the dataset.

    Raises:
        SystemExit: status 1 when a picture could not be read; the others are drawn.
    """
    args = argument_parser().parse_intermixed_args(arguments)
    predictions = read_predictions(args.input)
    records, metadata, value_range = load_dataset(args)
    check_images(predictions, records)
    targets = plan_outputs([record["file_name"] for record in records], args.output, ".png")
    make_folder(args.output, "--output")
    failures = Failures()

    def draw(record: Mapping[str, Any], target: Path) -> None:
        size = (record["height"], record["width"])
        found = create_instances(predictions.get(record["image_id"], ()), size, metadata)
        save_drawn(
            draw_truth_beside_predictions(
                record, found, metadata, args.conf_threshold, value_range
            ),
            target,
        )

    pairs = list(zip(records, targets, strict=True))[: args.num_images]
    for record, target in tqdm(pairs, unit="picture", disable=None):
        failures.attempt(draw, record, target)
    failures.end()


def _listed(ids: Iterable[Any], limit: int = 8) -> str:
    ids = list(ids)
    return ", ".join(map(str, ids[:limit])) + (", ..." if len(ids) > limit else "")


if __name__ == "__main__":
    run_tool(main, OSError)
