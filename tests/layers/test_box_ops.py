"""Box formats and overlaps, against loops and torchvision."""

import pytest
import torch
import torchvision

from detrex.layers import (
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    masks_to_boxes,
)
from detrex.layers.box_ops import paired_generalized_box_iou
from tests.reference.loops import giou
from tests.reference.predictions import random_boxes


def test_formats__equal_torchvision_and_undo_each_other():
    boxes = random_boxes(2, 5)
    xyxy = box_cxcywh_to_xyxy(boxes)
    expected = torchvision.ops.box_convert(boxes, "cxcywh", "xyxy")
    torch.testing.assert_close(xyxy, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(box_xyxy_to_cxcywh(xyxy), boxes, rtol=1e-6, atol=1e-6)


def test_overlaps__equal_loop():
    a, b = box_cxcywh_to_xyxy(random_boxes(5)), box_cxcywh_to_xyxy(random_boxes(3))
    naive = torch.tensor([[giou(x, y) for y in b.tolist()] for x in a.tolist()])
    expected_giou, expected_iou, expected_union = naive.unbind(-1)
    iou, union = box_iou(a, b)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(union, expected_union, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(generalized_box_iou(a, b), expected_giou, rtol=1e-5, atol=1e-5)


def test_box_iou__denominator_has_1e_6():
    box = torch.tensor([[0.0, 0.0, 1e-3, 1e-3]])
    torch.testing.assert_close(box_iou(box, box)[0], torch.tensor([[0.5]]), rtol=1e-4, atol=0)


def test_generalized_box_iou__batched_and_paired():
    a, b = box_cxcywh_to_xyxy(random_boxes(2, 5)), box_cxcywh_to_xyxy(random_boxes(2, 5))
    batched = generalized_box_iou(a, b)
    for i in range(2):
        torch.testing.assert_close(batched[i], generalized_box_iou(a[i], b[i]))
    paired = paired_generalized_box_iou(a, b)
    torch.testing.assert_close(paired, batched.diagonal(dim1=1, dim2=2))


@pytest.mark.parametrize(
    "bad", [[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1], [0.3, 0.1, 0.2, 0.8], [1e30, 0, -1e30, 0]]
)
def test_generalized_box_iou__degenerate_box_is_finite(bad):
    boxes = torch.tensor([bad, [0.1, 0.1, 0.4, 0.4]], requires_grad=True)
    values = generalized_box_iou(boxes, boxes)
    values.sum().backward()
    assert values.isfinite().all()
    assert boxes.grad.isfinite().all()
    assert values.min() >= -1 - 1e-6


def test_generalized_box_iou__nan_stays_nan():
    boxes = torch.tensor([[float("nan"), 0, 1, 1], [0.0, 0.0, 1.0, 1.0]])
    assert generalized_box_iou(boxes, boxes).isnan().tolist() == [[True, True], [True, False]]


def test_masks_to_boxes__equals_torchvision():
    masks = torch.rand(5, 11, 7) > 0.9
    masks[:, 3, 2] = True
    expected = torchvision.ops.masks_to_boxes(masks)
    torch.testing.assert_close(masks_to_boxes(masks), expected)
    torch.testing.assert_close(masks_to_boxes(masks.float()), expected)


def test_masks_to_boxes__empty_mask_and_no_masks():
    masks = torch.zeros(2, 5, 7)
    masks[1, 2, 3] = 1
    assert masks_to_boxes(masks).tolist() == [[0, 0, 0, 0], [3, 2, 3, 2]]
    assert masks_to_boxes(masks[:0]).shape == (0, 4)


def test_masks_to_boxes__stays_on_device():
    assert masks_to_boxes(torch.zeros(3, 5, 7, device="meta")).device.type == "meta"
