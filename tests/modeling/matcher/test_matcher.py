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


@pytest.mark.parametrize(
    ("settings", "class_cost"),
    [
        ({}, FocalLossCost()),
        ({"cost_class_type": "ce_cost"}, CrossEntropyCost()),
        ({"alpha": 0.9}, FocalLossCost(alpha=0.9)),
        ({"gamma": 0.0}, FocalLossCost(gamma=0.0)),
    ],
)
def test_forward__equals_matching_image_by_image(settings, class_cost):
    outputs, targets = random_outputs(3), random_targets(COUNTS)
    matches = HungarianMatcher(2.0, 5.0, 2.0, **settings)(outputs, targets)
    for i, (target, (rows, columns)) in enumerate(zip(targets, matches, strict=True)):
        logits, boxes = outputs["pred_logits"][i].detach(), outputs["pred_boxes"][i].detach()
        cost = (
            2 * class_cost(logits, target["labels"])
            + 5 * L1Cost()(boxes, target["boxes"])
            + 2 * GIoUCost()(boxes, target["boxes"])
        )
        assert sorted(columns.tolist()) == list(range(len(target["labels"])))
        assert len(set(rows.tolist())) == len(rows)
        least = cost[linear_sum_assignment(cost.numpy())].sum()
        torch.testing.assert_close(cost[rows, columns].sum(), least, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("logits", "cost_bbox", "settings", "row"),
    [
        # The second prediction has the better class, the first the better box, by 0.04 in x. What
        # the class is worth, by hand: 1.14 for alpha 0.25 and 0.30 for 0.9 against 0.70 of the box.
        ((0.0, 2.0), 17.5, {}, 1),
        ((0.0, 2.0), 17.5, {"alpha": 0.25}, 1),
        ((0.0, 2.0), 17.5, {"alpha": 0.9}, 0),
        # 0.50 for gamma 2 and 0.78 for 0 against 0.64.
        ((-2.0, 0.0), 16.0, {}, 0),
        ((-2.0, 0.0), 16.0, {"gamma": 2.0}, 0),
        ((-2.0, 0.0), 16.0, {"gamma": 0.0}, 1),
        # Probabilities of 0.5 and 0.88 against 0.30, of 0.12 and 0.5 against 0.40.
        ((0.0, 2.0), 7.5, {"cost_class_type": "ce_cost"}, 1),
        ((-2.0, 0.0), 10.0, {"cost_class_type": "ce_cost"}, 0),
    ],
)
def test_forward__weighs_class_against_box(logits, cost_bbox, settings, row):
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.54, 0.5, 0.2, 0.2]]])
    outputs = {
        "pred_logits": torch.tensor([[[logit, 0.0] for logit in logits]]),
        "pred_boxes": boxes,
    }
    target = {"labels": torch.tensor([0]), "boxes": boxes[0, :1]}
    ((rows, _),) = HungarianMatcher(1.0, cost_bbox, 0.0, **settings)(outputs, [target])
    assert rows.tolist() == [row]


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


def test_match_layers__are_those_of_each_layer_alone():
    layers = [
        (random_outputs(3), random_targets(COUNTS)),
        (random_outputs(3, queries=11), random_targets((0, 0, 0))),
        (random_outputs(1, num_classes=9), random_targets((4,), num_classes=9)),
    ]
    matcher = HungarianMatcher(2.0, 5.0, 2.0)
    for layer, matches in zip(layers, matcher.match_layers(layers), strict=True):
        for match, expected in zip(matches, matcher(*layer), strict=True):
            assert torch.equal(match[0], expected[0])
            assert torch.equal(match[1], expected[1])


def test_match_layers__label_beyond_the_classes_of_the_second():
    layers = [
        (random_outputs(1, num_classes=9), random_targets((2,))),
        (random_outputs(1), [{"labels": torch.tensor([1, 7]), "boxes": torch.rand(2, 4)}]),
    ]
    with pytest.raises(ValueError, match="run from 1 to 7, but the detector has 5 classes"):
        HungarianMatcher().match_layers(layers)


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


def test_forward__nan_target_is_named_before_what_comes_of_it():
    outputs, targets = random_outputs(2), random_targets((2, 3))
    targets[1]["boxes"][0, 0] = float("nan")
    outputs["pred_logits"].data[:] = float("nan")
    with pytest.raises(NonFiniteLossError, match="got target boxes with 1 of 12 numbers NaN"):
        HungarianMatcher()(outputs, targets)


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
