"""Draw the predictions of an evaluation beside the truth.

python tools/visualize_json_results.py --input RUN/coco_instances_results.json --output output/look
... --dataset coco_2017_val                  for a dataset that detectron2 has registered
... --config-file CONFIG [key=value ...]     for the dataset of dataloader.test in a config
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from tqdm import tqdm

from detrex.config import load_config
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError, did_you_mean
from detrex.utils.drawing import draw_truth_beside_predictions

Predictions = Sequence[Mapping[str, Any]]


def create_instances(
    predictions: Predictions, image_size: tuple[int, int], metadata: Metadata
) -> Instances:
    """Turn one image's rows of a COCO results file into detectron2's ``Instances``.

    Args:
        predictions: rows with ``bbox`` (x, y, width, height), ``category_id`` and ``score``.
        image_size: height and width in pixels.
        metadata: of the dataset; ``thing_dataset_id_to_contiguous_id`` maps the categories.

    Returns:
        ``pred_boxes``, ``pred_classes`` (contiguous) and ``scores``.
    """
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id", None)
    boxes = np.array([p["bbox"] for p in predictions], dtype=np.float32).reshape(-1, 4)
    categories = [p["category_id"] for p in predictions]
    return Instances(
        image_size,
        pred_boxes=Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)),
        pred_classes=torch.tensor(
            [contiguous[c] if contiguous else c for c in categories], dtype=torch.int64
        ),
        scores=torch.tensor([p["score"] for p in predictions]),
    )


def load_dataset(args: argparse.Namespace) -> tuple[list[dict[str, Any]], Metadata]:
    """Return the records and the metadata of ``--config-file``'s test set, or of ``--dataset``."""
    if args.config_file:
        cfg = apply_overrides(load_config(args.config_file), args.opts)
        records = instantiate(cfg.dataloader.test.dataset)
        names = instantiate(cfg.dataloader.test.dataset.names)
        return records, MetadataCatalog.get(names if isinstance(names, str) else names[0])
    if args.dataset not in DatasetCatalog:
        raise ConfigError(
            f"--dataset {args.dataset} is not registered with detectron2: name a registered one, "
            "or the config that registers it by --config-file."
            + did_you_mean(args.dataset, DatasetCatalog.list())
        )
    return DatasetCatalog.get(args.dataset), MetadataCatalog.get(args.dataset)


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
    parser.add_argument("-n", "--num-images", type=int, help="stop after so many pictures")
    parser.add_argument("opts", nargs="*", default=[], help="overrides of the config")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one PNG per image of the dataset."""
    args = argument_parser().parse_intermixed_args(arguments)
    records, metadata = load_dataset(args)
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for prediction in json.loads(Path(args.input).read_text()):
        by_image[prediction["image_id"]].append(prediction)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for record in tqdm(records[: args.num_images], unit="picture", disable=None):
        size = (record["height"], record["width"])
        found = create_instances(by_image[record["image_id"]], size, metadata)
        picture = draw_truth_beside_predictions(record, found, metadata, args.conf_threshold)
        Image.fromarray(picture).save(folder / f"{Path(record['file_name']).stem}.png")


if __name__ == "__main__":
    main()
