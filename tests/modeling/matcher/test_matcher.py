"""The Hungarian matcher."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from detrex.errors import NonFiniteLossError
from detrex.modeling.matcher import (
    CrossEntropyCost,
    FocalLossCost,
    GIoUCost,
    HungarianMatcher,
    L1Cost,
)
from tests.reference.predictions import random_outputs, random_targets

COUNTS = (3, 0, 5)


@pytest.mark.parametrize("kind", ["focal_loss_cost", "ce_cost"])
def test_forward__equals_matching_image_by_image(kind):
    outputs, targets = random_outputs(3), random_targets(COUNTS)
    matches = HungarianMatcher(2.0, 5.0, 2.0, kind)(outputs, targets)
    class_cost = FocalLossCost() if kind == "focal_loss_cost" else CrossEntropyCost()
    for i, (target, (rows, columns)) in enumerate(zip(targets, matches, strict=True)):
        logits, boxes = outputs["pred_logits"][i].detach(), outputs["pred_boxes"][i].detach()
        cost = (
            2 * class_cost(logits, target["labels"])
            + 5 * L1Cost()(boxes, target["boxes"])
            + 2 * GIoUCost()(boxes, target["boxes"])
        )
        expected = linear_sum_assignment(cost.numpy())
        assert rows.tolist() == expected[0].tolist()
        assert columns.tolist() == expected[1].tolist()


def test_forward__finds_the_objects_themselves():
    targets = random_targets(COUNTS)
    outputs = random_outputs(3)
    boxes = outputs["pred_boxes"].detach()
    for i, target in enumerate(targets):
        boxes[i, 1 : 1 + COUNTS[i]] = target["boxes"].flip(0)
    matches = HungarianMatcher(0, 1, 1)({**outputs, "pred_boxes": boxes}, targets)
    for count, (rows, columns) in zip(COUNTS, matches, strict=True):
        assert rows.tolist() == list(range(1, count + 1))
        assert columns.tolist() == list(reversed(range(count)))


@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_forward__images_without_objects(counts):
    matches = HungarianMatcher()(random_outputs(2), random_targets(counts))
    assert [len(columns) for _, columns in matches] == list(counts)
    assert all(index.dtype == torch.int64 for match in matches for index in match)


def test_forward__half_precision_outputs():
    outputs, targets = random_outputs(2), random_targets((2, 3))
    half = {name: tensor.detach().bfloat16() for name, tensor in outputs.items()}
    full = {name: tensor.float() for name, tensor in half.items()}
    matcher = HungarianMatcher()
    for a, b in zip(matcher(half, targets), matcher(full, targets), strict=True):
        assert torch.equal(a[0], b[0])


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes"])
def test_forward__nan_is_named(name):
    outputs, targets = random_outputs(2), random_targets((2, 3))
    outputs[name].data[1, 2, 0] = float("nan")
    # Only the logits of classes that occur are looked at.
    targets[1]["labels"][:] = 0
    with pytest.raises(NonFiniteLossError, match=f"The matcher got {name} with 1 of .* NaN"):
        HungarianMatcher()(outputs, targets)


def test_forward__nan_target_is_named():
    targets = random_targets((2, 3))
    targets[1]["boxes"][0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="got target boxes with 1 of 12 numbers NaN"):
        HungarianMatcher()(random_outputs(2), targets)


@pytest.mark.parametrize("value", [0.0, 1e-20, 1e30])
def test_forward__degenerate_boxes_match(value):
    outputs, targets = random_outputs(2), random_targets((2, 3))
    outputs["pred_boxes"].data[:] = value
    targets[0]["boxes"][:] = 0
    assert [len(columns) for _, columns in HungarianMatcher()(outputs, targets)] == [2, 3]


def test_forward__label_beyond_the_classes():
    targets = random_targets((2, 3))
    targets[1]["labels"][2] = 5
    with pytest.raises(ValueError, match="the detector has 5 classes"):
        HungarianMatcher()(random_outputs(2), targets)


def test_init__bad_arguments_are_refused():
    with pytest.raises(ValueError, match="are all 0"):
        HungarianMatcher(0, 0, 0)
    with pytest.raises(ValueError, match="must be 'focal_loss_cost' or 'ce_cost', got 'focal'"):
        HungarianMatcher(cost_class_type="focal")


def test_repr__lists_the_settings():
    text = HungarianMatcher(2.0).__repr__(_repr_indent=8)
    assert text.startswith("Matcher HungarianMatcher\n        cost_class: 2.0\n")
    assert "\n    gamma: 2.0" in repr(HungarianMatcher())
