"""The way out: the best detections of each image, in the caller's pixels, and pictures of training.

Letters in shapes: n images, q queries, c classes, k detections.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from detrex.layers import box_cxcywh_to_xyxy


def select_detections(
    logits_nqc: Tensor,
    boxes_nq4: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    limit: int,
) -> list[Instances]:
    """Take the best (query, class) pairs of each image.

    Args:
        logits_nqc: class logits.
        boxes_nq4: cxcywh in 0..1 of the image.
        image_sizes: (height, width) of each image as the detector sees it.
        limit: the most detections per image; there are fewer where there are fewer pairs.

    Returns:
        Per image ``pred_boxes`` (xyxy, in pixels of ``image_sizes``), ``scores`` (k,) in 0..1,
        highest first, and ``pred_classes`` (k,).
    """
    num_classes = logits_nqc.shape[-1]
    flat = logits_nqc.flatten(1)
    logits_nk, index_nk = flat.topk(min(limit, flat.shape[1]), dim=1)
    scores_nk, query_nk = logits_nk.sigmoid(), index_nk // num_classes
    boxes_nk4 = box_cxcywh_to_xyxy(boxes_nq4.gather(1, query_nk[..., None].expand(-1, -1, 4)))

    detections = []
    for boxes, scores, classes, (height, width) in zip(
        boxes_nk4, scores_nk, index_nk % num_classes, image_sizes, strict=True
    ):
        result = Instances((height, width))
        corners = torch.stack([boxes[:, 0::2] * width, boxes[:, 1::2] * height], -1)
        result.pred_boxes = Boxes(corners.flatten(1))
        result.scores = scores
        result.pred_classes = classes
        detections.append(result)
    return detections


def resize_detections(
    detections: Sequence[Instances], batched_inputs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Instances]]:
    """Bring detections to the ``"height"`` and ``"width"`` that the inputs ask for.

    Returns:
        ``{"instances": Instances}`` per image; boxes are clipped to the image, empty ones left out.
    """
    results = []
    for detection, inputs in zip(detections, batched_inputs, strict=True):
        height = inputs.get("height", detection.image_size[0])
        width = inputs.get("width", detection.image_size[1])
        results.append({"instances": detector_postprocess(detection, height, width)})
    return results


def draw_training(
    inputs: Mapping[str, Any], detection: Instances, input_format: str, max_boxes: int = 20
) -> np.ndarray:
    """Draw the annotated boxes of a training image beside the best detections.

    Args:
        inputs: a dataset dict with ``"image"`` (c, h, w) and ``"instances"``.
        detection: boxes in pixels of that image with classes and scores, best first.
        input_format: the order of the channels, such as ``"RGB"``, ``"BGR"`` or ``"L"``.
        max_boxes: the most detections to draw.

    Returns:
        (3, h, 2 w) uint8 RGB picture.
    """
    from detrex.data.drawing import draw_boxes  # loads the data library, which models do without

    image = convert_image_to_rgb(inputs["image"].permute(1, 2, 0), input_format)
    image = np.clip(image, 0, 255).astype(np.uint8)
    annotated, best = inputs["instances"], detection[:max_boxes]
    truth = draw_boxes(
        image,
        annotated.gt_boxes.tensor.detach().cpu().numpy(),
        annotated.gt_classes.tolist(),
        min_side=1,
    )
    found = draw_boxes(
        image,
        best.pred_boxes.tensor.detach().float().cpu().numpy(),
        best.pred_classes.tolist(),
        best.scores.tolist(),
        min_side=1,
    )
    picture = np.concatenate([truth, found], axis=1)
    return np.ascontiguousarray(picture.transpose(2, 0, 1))
