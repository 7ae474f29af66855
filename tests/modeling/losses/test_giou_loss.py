"""Generalized IoU loss, against a loop."""

import torch

from detrex.layers import box_cxcywh_to_xyxy
from detrex.modeling.losses import GIoULoss, giou_loss
from tests.reference.loops import giou
from tests.reference.predictions import random_boxes


def _boxes():
    return box_cxcywh_to_xyxy(random_boxes(5)), box_cxcywh_to_xyxy(random_boxes(5))


def test_giou_loss__equals_loop():
    boxes, truth = _boxes()
    pairs = zip(boxes.tolist(), truth.tolist(), strict=True)
    expected = torch.tensor([1 - giou(box, other, eps=1e-3)[0] for box, other in pairs])
    loss = giou_loss(boxes, truth, eps=1e-3, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_giou_loss__weights_of_coordinates_are_averaged():
    boxes, truth = _boxes()
    weight = torch.rand(5, 4)
    torch.testing.assert_close(
        giou_loss(boxes, truth, weight), giou_loss(boxes, truth, weight.mean(1))
    )


def test_giou_loss__no_boxes():
    assert giou_loss(torch.zeros(0, 4), torch.zeros(0, 4)).item() == 0


def test_giou_loss_module__weight():
    boxes, truth = _boxes()
    loss = GIoULoss(loss_weight=2.0)(boxes, truth, avg_factor=3)
    torch.testing.assert_close(loss, 2 * giou_loss(boxes, truth, reduction="sum") / 3)
