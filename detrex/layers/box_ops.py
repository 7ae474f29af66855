"""Boxes: formats and overlaps.

Formats are named in full: ``cxcywh`` is (centre x, centre y, width, height), ``xyxy`` is (left,
top, right, bottom). Units (pixels or shares of the image) are the caller's; nothing here depends on
them.

Every overlap is finite for finite boxes: a box of negative size counts as empty. A NaN stays a NaN,
so that the check of the losses can name it.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

# The original adds this to the denominators of IoU and GIoU; released models were trained with it.
_EPS = 1e-6


def box_cxcywh_to_xyxy(bbox: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Turn (..., 4) boxes from (centre x, centre y, width, height) into (x1, y1, x2, y2)."""
    center, size = bbox[..., :2], bbox[..., 2:]
    return torch.cat([center - 0.5 * size, center + 0.5 * size], dim=-1)


def box_xyxy_to_cxcywh(bbox: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Turn (..., 4) boxes from (x1, y1, x2, y2) into (centre x, centre y, width, height)."""
    top_left, bottom_right = bbox[..., :2], bbox[..., 2:]
    return torch.cat([(top_left + bottom_right) / 2, bottom_right - top_left], dim=-1)


def _area(boxes_xyxy: Tensor) -> Tensor:
    width, height = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def _iou_and_union(boxes1: Tensor, boxes2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Overlap of ``xyxy`` boxes whose leading dimensions broadcast."""
    top_left = torch.maximum(boxes1[..., :2], boxes2[..., :2])
    bottom_right = torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    inter = _area(torch.cat([top_left, bottom_right], dim=-1))
    union = _area(boxes1) + _area(boxes2) - inter
    return inter / (union + eps), union


def _giou(boxes1: Tensor, boxes2: Tensor, eps: float) -> Tensor:
    iou, union = _iou_and_union(boxes1, boxes2, eps)
    top_left = torch.minimum(boxes1[..., :2], boxes2[..., :2])
    bottom_right = torch.maximum(boxes1[..., 2:], boxes2[..., 2:])
    hull = _area(torch.cat([top_left, bottom_right], dim=-1))
    return iou - (hull - union) / (hull + eps)


def box_iou(
    boxes1: Float[Tensor, "*_ n 4"], boxes2: Float[Tensor, "*_ m 4"]
) -> tuple[Float[Tensor, "*_ n m"], Float[Tensor, "*_ n m"]]:
    """Intersection over union of each box of one set with each of another.

    Args:
        boxes1: (..., N, 4) boxes, ``xyxy``.
        boxes2: (..., M, 4) boxes, ``xyxy``; leading dimensions broadcast.

    Returns:
        (..., N, M) IoU in [0, 1] with 1e-6 added to its denominator, and the (..., N, M) areas of
        the unions.
    """
    return _iou_and_union(boxes1.unsqueeze(-2), boxes2.unsqueeze(-3), _EPS)


def generalized_box_iou(
    boxes1: Float[Tensor, "*_ n 4"], boxes2: Float[Tensor, "*_ m 4"]
) -> Float[Tensor, "*_ n m"]:
    """Generalized IoU (arXiv:1902.09630) of each box of one set with each of another.

    Args:
        boxes1: (..., N, 4) boxes, ``xyxy``.
        boxes2: (..., M, 4) boxes, ``xyxy``; leading dimensions broadcast.

    Returns:
        (..., N, M) values in [-1, 1]: IoU less the share of the hull that neither box covers.
    """
    return _giou(boxes1.unsqueeze(-2), boxes2.unsqueeze(-3), _EPS)


def paired_generalized_box_iou(
    boxes1: Float[Tensor, "*n 4"], boxes2: Float[Tensor, "*n 4"], eps: float = _EPS
) -> Float[Tensor, "*n"]:
    """Generalized IoU of the i-th box of one set with the i-th of another.

    Args:
        boxes1: (..., 4) boxes, ``xyxy``.
        boxes2: (..., 4) boxes, ``xyxy``.
        eps: added to the areas that are divided by.

    Returns:
        (...,) values: the diagonal of `generalized_box_iou`, without computing the rest.
    """
    return _giou(boxes1, boxes2, eps)


def masks_to_boxes(masks: Shaped[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """Find the tight box of each mask.

    Args:
        masks: (N, H, W) bool, or numbers that are 0 outside the object; any device.

    Returns:
        (N, 4) float boxes, ``xyxy``, of the first and last pixel that is set, so a mask of one
        pixel has a box of size zero; (0, 0, 0, 0) for an empty mask.
    """
    if masks.numel() == 0:
        return torch.zeros(masks.shape[0], 4, device=masks.device)
    masks = masks != 0

    def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
        first = occupied.int().argmax(dim=1)
        last = occupied.shape[1] - 1 - occupied.flip(1).int().argmax(dim=1)
        return first, last

    (x1, x2), (y1, y2) = extent(masks.any(dim=1)), extent(masks.any(dim=2))
    boxes = torch.stack([x1, y1, x2, y2], dim=1).float()
    return boxes * masks.flatten(1).any(dim=1, keepdim=True)
