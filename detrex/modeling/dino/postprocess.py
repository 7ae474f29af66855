"""The way out: the best detections of each image, in the caller's pixels, and pictures of training.

Letters in shapes: n images, q queries, c classes, k detections.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import Boxes, Instances
from jaxtyping import Float, UInt8
from torch import Tensor

from detrex.errors import NonFiniteLossError
from detrex.layers import box_cxcywh_to_xyxy


def select_detections(
    logits_nqc: Float[Tensor, "n q c"],
    boxes_nq4: Float[Tensor, "n q 4"],
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
        x, y = boxes.unflatten(1, (2, 2)).unbind(-1)
        result.pred_boxes = Boxes(torch.stack([x * width, y * height], -1).flatten(1))
        result.scores = scores
        result.pred_classes = classes
        detections.append(result)
    return detections


def resize_detections(
    detections: Sequence[Instances], batched_inputs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Instances]]:
    """Bring detections to the ``"height"`` and ``"width"`` that the inputs ask for.

    This is detectron2's ``detector_postprocess`` for boxes, with one read-back from the device for
    all images.

    Returns:
        ``{"instances": Instances}`` per image; boxes are clipped to the image, empty ones left out.

    Raises:
        NonFiniteLossError: a box is NaN or infinite.
    """
    resized = [
        _resized(detection, inputs)
        for detection, inputs in zip(detections, batched_inputs, strict=True)
    ]
    boxes = torch.cat([detection.pred_boxes.tensor for detection in detections])
    whole = torch.cat([result.pred_boxes.nonempty() for result in resized])
    whole, finite = torch.stack([whole, boxes.isfinite().all(-1)]).cpu()
    if not finite.all():
        raise NonFiniteLossError(
            f"{int((~finite).sum())} of {len(boxes)} detected boxes are NaN or infinite: look for "
            "weights or pixels that are, or evaluate in bfloat16 or float32 instead of float16."
        )
    kept = whole.split([len(result) for result in resized])
    return [{"instances": _chosen(*pair)} for pair in zip(resized, kept, strict=True)]


def _resized(detection: Instances, inputs: Mapping[str, Any]) -> Instances:
    old_height, old_width = detection.image_size
    height, width = inputs.get("height", old_height), inputs.get("width", old_width)
    result = Instances((height, width), **detection.get_fields())
    x, y = detection.pred_boxes.tensor.unflatten(1, (2, 2)).unbind(-1)
    x = (x * (width / old_width)).clamp(0, width)
    y = (y * (height / old_height)).clamp(0, height)
    result.pred_boxes = Boxes(torch.stack([x, y], -1).flatten(1))
    return result


def _chosen(detection: Instances, kept: Tensor) -> Instances:
    if kept.all():
        return detection
    return detection[kept.nonzero().flatten().to(detection.scores.device)]


def draw_training(
    inputs: Mapping[str, Any], detection: Instances, input_format: str, max_boxes: int = 20
) -> UInt8[np.ndarray, "3 h _"]:
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
