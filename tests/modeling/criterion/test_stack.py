"""Stacked layers, against a loop over layers, images and pairs."""

import pytest
import torch

from detrex.modeling.criterion.stack import Layer, Stack
from tests.reference.predictions import random_outputs, random_targets

COUNTS = (3, 0, 2)


def _stack(targets):
    outputs = random_outputs(3, aux=1)
    pairs = [
        [([6, 1], [0, 2]), ([], []), ([0], [1])],
        [([2], [1]), ([], []), ([5, 4], [1, 0])],
    ]
    matches = [
        [tuple(torch.tensor(side, dtype=torch.int64) for side in match) for match in layer]
        for layer in pairs
    ]
    return Stack([outputs, *outputs["aux_outputs"]], targets, matches)


def test_stack__equals_a_loop_over_pairs():
    targets = random_targets(COUNTS)
    stack = _stack(targets)
    boxes, truth, classes = [], [], torch.full((2, 3, 7), 9)
    for layer, matches in enumerate(stack.matches):
        for image, (queries, objects) in enumerate(matches):
            for query, number in zip(queries.tolist(), objects.tolist(), strict=True):
                boxes.append(stack.outputs[layer]["pred_boxes"][image, query])
                truth.append(targets[image]["boxes"][number])
                classes[layer, image, query] = targets[image]["labels"][number]
    torch.testing.assert_close(stack.matched_boxes(), (torch.stack(boxes), torch.stack(truth)))
    assert torch.equal(stack.classes(9), classes)
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, float("nan")])
    torch.testing.assert_close(stack.sums(values)[0], torch.tensor(7.0))
    assert stack.sums(values)[1].isnan()


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: Layer({**layer.outputs, "pred_boxes": torch.rand(3, 8, 4)}, layer.targets),
        lambda layer: Layer({k: v.double() for k, v in layer.outputs.items()}, layer.targets),
        lambda layer: Layer(layer.outputs, random_targets(COUNTS)),
    ],
)
def test_kind__differs_with_shapes_formats_and_targets(change):
    targets = random_targets(COUNTS)
    layer = Layer(random_outputs(3), targets)
    assert layer.kind == Layer(random_outputs(3), targets, "_0").kind
    assert layer.kind != change(layer).kind
