"""The matcher that is put together from costs."""

import pytest
import torch
from torch import nn

from detrex.errors import NonFiniteLossError
from detrex.modeling.matcher import CrossEntropyCost, HungarianMatcher, ModifedMatcher
from tests.reference.predictions import random_outputs, random_targets


def _arguments(outputs, targets):
    labels, boxes = ([target[key] for target in targets] for key in ("labels", "boxes"))
    return outputs["pred_logits"], outputs["pred_boxes"], labels, boxes


@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0, 0)])
def test_forward__equals_hungarian_matcher(counts):
    outputs, targets = random_outputs(3), random_targets(counts)
    ours = ModifedMatcher()(*_arguments(outputs, targets))
    theirs = HungarianMatcher(2.0, 5.0, 2.0)(outputs, targets)
    for match, expected in zip(ours, theirs, strict=True):
        assert torch.equal(match[0], expected[0])
        assert torch.equal(match[1], expected[1])


def test_forward__own_costs():
    class Nothing(nn.Module):
        def forward(self, predictions, truth):
            return torch.zeros(len(predictions), len(truth))

    outputs, targets = random_outputs(1), random_targets((1,))
    matcher = ModifedMatcher(CrossEntropyCost(), Nothing(), Nothing())
    ((row, _),) = matcher(*_arguments(outputs, targets))
    best = outputs["pred_logits"][0].softmax(-1)[:, targets[0]["labels"]].argmax()
    assert row.item() == best.item()


def test_forward__nan_is_named():
    outputs, targets = random_outputs(2), random_targets((2, 3))
    outputs["pred_boxes"].data[1, 2, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="got pred_bboxes with 1 of 56 numbers NaN"):
        ModifedMatcher()(*_arguments(outputs, targets))


def test_forward__label_beyond_the_classes():
    outputs, targets = random_outputs(2), random_targets((2, 3))
    targets[0]["labels"][0] = 9
    with pytest.raises(ValueError, match=r"run from .* to 9"):
        ModifedMatcher()(*_arguments(outputs, targets))


def test_match_layers__are_those_of_each_layer_alone():
    layers = [
        _arguments(random_outputs(3), random_targets((3, 0, 5))),
        _arguments(random_outputs(2, queries=11), random_targets((0, 1))),
    ]
    matcher = ModifedMatcher()
    for layer, matches in zip(layers, matcher.match_layers(layers), strict=True):
        for match, expected in zip(matches, matcher(*layer), strict=True):
            assert torch.equal(match[0], expected[0])
            assert torch.equal(match[1], expected[1])
