"""A detector that answers the truth about shapes, in every form that detectron2 evaluates."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Boxes, Instances
from torch import nn


class ShapeOracle(nn.Module):
    """Answers with the boxes, masks, keypoints, classes of pixels and segments of a file.

    Args:
        json_file: the annotations that `write_shapes_dataset` wrote.
    """

    def __init__(self, json_file: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.objects = defaultdict(list)
        for annotation in json.loads(Path(json_file).read_text())["annotations"]:
            self.objects[annotation["image_id"]].append(annotation)

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        if self.training:
            return {"loss": self.weight.sum()}
        return [self._answer(sample) for sample in batch]

    def _answer(self, sample: dict[str, Any]) -> dict[str, Any]:
        size = sample["height"], sample["width"]
        objects = self.objects[sample["image_id"]]
        found = Instances(size)
        boxes = np.array([a["bbox"] for a in objects], dtype=np.float32)
        boxes[:, 2:] += boxes[:, :2]
        found.pred_boxes = Boxes(boxes)
        found.scores = torch.ones(len(objects))
        found.pred_classes = torch.tensor([a["category_id"] - 1 for a in objects])
        outlines = [mask_util.frPyObjects(a["segmentation"], *size) for a in objects]
        masks = np.stack([mask_util.decode(outline)[..., 0] == 1 for outline in outlines])
        found.pred_masks = torch.from_numpy(masks)
        keypoints = np.array([a["keypoints"] for a in objects], dtype=np.float32)
        # COCO counts from the middle of a pixel, a detector from its corner.
        keypoints = keypoints.reshape(len(objects), -1, 3) + np.array([0.5, 0.5, 0])
        found.pred_keypoints = torch.from_numpy(keypoints)
        ground = ~found.pred_masks.any(0)
        segments = torch.ones(size, dtype=torch.int32)
        infos = [{"id": 1, "category_id": 1, "isthing": False}]
        for number, mask in enumerate(found.pred_masks, start=2):
            segments[mask] = number
            kind = int(found.pred_classes[number - 2])
            infos.append({"id": number, "category_id": kind, "isthing": True})
        return {
            "instances": found,
            "sem_seg": torch.stack([~ground, ground]).float(),
            "panoptic_seg": (segments, infos),
        }
