"""The shapes as a panoptic data set: every pixel is of a shape or of the ground."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic
from PIL import Image

from detrex.data.demo.shapes import CLASSES, write_shapes_dataset

GROUND = len(CLASSES) + 1
METADATA = {
    "thing_classes": list(CLASSES),
    "thing_dataset_id_to_contiguous_id": {i + 1: i for i in range(len(CLASSES))},
    "stuff_classes": ["things", "ground"],
    "stuff_dataset_id_to_contiguous_id": {0: 0, GROUND: 1},
}


def register_panoptic_shapes(name: str, root: Path, *arguments, **keywords) -> None:
    """Write shapes with classes of pixels and panoptic truth, and register them.

    Args:
        name: of the data set.
        root: the folder to write to.
        arguments: of `write_shapes_dataset`, after the folder.
        keywords: of it.
    """
    json_file, images = write_shapes_dataset(root, *arguments, **keywords)
    coco = json.loads(json_file.read_text())
    for folder in ("sem_seg", "panoptic"):
        (root / folder).mkdir()
    records = []
    for image in coco["images"]:
        size = image["height"], image["width"]
        segments = np.ones(size, dtype=np.uint8)
        infos = [{"id": 1, "category_id": GROUND, "iscrowd": 0}]
        for annotation in (a for a in coco["annotations"] if a["image_id"] == image["id"]):
            outline = mask_util.frPyObjects(annotation["segmentation"], *size)
            segments[mask_util.decode(outline)[..., 0] == 1] = len(infos) + 1
            infos.append(
                {"id": len(infos) + 1, "category_id": annotation["category_id"], "iscrowd": 0}
            )
        for info in infos:
            info["area"] = int((segments == info["id"]).sum())
        Image.fromarray((segments == 1).astype(np.uint8)).save(
            root / "sem_seg" / image["file_name"]
        )
        # A segment's id is r + 256 g + 65536 b.
        coded = np.stack([segments, 0 * segments, 0 * segments], axis=-1)
        Image.fromarray(coded).save(root / "panoptic" / image["file_name"])
        file = {"image_id": image["id"], "file_name": image["file_name"]}
        records.append(file | {"segments_info": infos})
    things = [{**c, "isthing": 1} for c in coco["categories"]]
    ground = {"id": GROUND, "name": "ground", "isthing": 0}
    panoptic = {"images": coco["images"], "annotations": records, "categories": [*things, ground]}
    (root / "panoptic.json").write_text(json.dumps(panoptic))
    DatasetCatalog.register(
        name,
        lambda: merge_to_panoptic(
            load_coco_json(str(json_file), str(images), name),
            load_sem_seg(str(root / "sem_seg"), str(images), image_ext="png"),
        ),
    )
    MetadataCatalog.get(name).set(
        json_file=str(json_file),
        panoptic_root=str(root / "panoptic"),
        panoptic_json=str(root / "panoptic.json"),
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        **METADATA,
    )
