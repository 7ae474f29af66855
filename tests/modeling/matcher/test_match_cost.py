"""Matching costs, against loops."""

import math

import pytest
import torch

from detrex.modeling.matcher import CrossEntropyCost, FocalLossCost, GIoUCost, L1Cost
from tests.reference.loops import giou, to_xyxy
from tests.reference.predictions import random_boxes


def test_focal_cost__equals_loop():
    logits, labels = torch.randn(5, 7), torch.tensor([6, 0, 3])
    cost = FocalLossCost(alpha=0.3, gamma=1.5, weight=2.0)(logits, labels)
    for q in range(5):
        for t, label in enumerate(labels.tolist()):
            p = 1 / (1 + math.exp(-logits[q, label].item()))
            positive = 0.3 * (1 - p) ** 1.5 * -math.log(p + 1e-8)
            negative = 0.7 * p**1.5 * -math.log(1 - p + 1e-8)
            assert cost[q, t].item() == pytest.approx(2 * (positive - negative), abs=1e-5)


def test_focal_cost__finite_for_certain_predictions():
    cost = FocalLossCost()(torch.tensor([[1e4, -1e4]]), torch.tensor([0, 1]))
    assert cost.isfinite().all()


def test_cross_entropy_cost__is_minus_the_probability():
    logits, labels = torch.randn(5, 7), torch.tensor([6, 0, 3])
    expected = -logits.softmax(-1)[:, labels] * 3
    torch.testing.assert_close(CrossEntropyCost(weight=3.0)(logits, labels), expected)


def test_box_costs__equal_loop():
    boxes, truth = random_boxes(5), random_boxes(3)
    l1, overlap = L1Cost(weight=5.0)(boxes, truth), GIoUCost(weight=2.0)(boxes, truth)
    for q, box in enumerate(boxes.tolist()):
        for t, other in enumerate(truth.tolist()):
            distance = sum(abs(a - b) for a, b in zip(box, other, strict=True))
            assert l1[q, t].item() == pytest.approx(5 * distance, abs=1e-5)
            expected = -2 * giou(to_xyxy(box), to_xyxy(other))[0]
            assert overlap[q, t].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("cost", [FocalLossCost(), CrossEntropyCost()])
def test_class_costs__batched(cost):
    logits, labels = torch.randn(2, 5, 7), torch.randint(7, (2, 3))
    batched = cost(logits, labels)
    for i in range(2):
        torch.testing.assert_close(batched[i], cost(logits[i], labels[i]))


@pytest.mark.parametrize("cost", [L1Cost(), GIoUCost()])
def test_box_costs__batched(cost):
    boxes, truth = random_boxes(2, 5), random_boxes(2, 3)
    batched = cost(boxes, truth)
    for i in range(2):
        torch.testing.assert_close(batched[i], cost(boxes[i], truth[i]))
