import math

import numpy as np
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from detrex.errors import NonFiniteLossError
from detrex.modeling.dino.postprocess import draw_training, resize_detections, select_detections
from tests.reference.tiny_dino import random_inputs

SIZES = [(20, 50), (37, 11)]


def _naive(logits, boxes, size, limit, padding):
    """Rank all pairs of query and class in Python."""
    pairs = [
        (logits[q, c].sigmoid().item(), q, c)
        for q in range(logits.shape[0])
        for c in range(logits.shape[1])
        if not padding[q]
    ]
    height, width = size
    found = []
    for score, q, c in sorted(pairs, reverse=True)[:limit]:
        x, y, w, h = boxes[q].tolist()
        corners = [
            (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
        ]  # fmt: skip
        found.append((score, c, corners))
    return found


def _distinct(*shape):
    """Logits in random order that no rounding brings into another."""
    count = math.prod(shape)
    return torch.linspace(-3, 3, count)[torch.randperm(count)].reshape(shape)


@pytest.mark.parametrize("limit", [1, 6, 1000])
@pytest.mark.parametrize("padded", [False, True])
def test_select_detections__equals_a_ranking_of_all_pairs(limit, padded):
    logits, boxes = _distinct(2, 7, 3), torch.rand(2, 7, 4)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = padded
    logits[padding] = float("-inf")
    results = select_detections(logits, boxes, SIZES, limit)
    for image, result in enumerate(results):
        expected = _naive(logits[image], boxes[image], SIZES[image], limit, padding[image])
        assert (result.scores[len(expected) :] == 0).all()
        result = result[: len(expected)]
        assert result.image_size == SIZES[image]
        assert result.pred_classes.tolist() == [c for _, c, _ in expected]
        scores = torch.tensor([score for score, _, _ in expected])
        torch.testing.assert_close(result.scores, scores, rtol=1e-5, atol=1e-6)
        corners = torch.tensor([corners for _, _, corners in expected])
        torch.testing.assert_close(result.pred_boxes.tensor, corners, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("asked", "scale"), [({}, 1), ({"height": 40, "width": 150}, None)])
def test_resize_detections__to_the_size_asked_for(asked, scale):
    result = Instances((20, 50))
    result.pred_boxes = Boxes(torch.tensor([[5.0, 5.0, 25.0, 30.0], [3.0, 4.0, 3.0, 9.0]]))
    result.scores = torch.tensor([0.9, 0.8])
    (output,) = resize_detections([result], [asked])
    expected = [[5, 5, 25, 20]] if scale else [[15, 10, 75, 40]]
    assert output["instances"].pred_boxes.tensor.tolist() == expected


def test_resize_detections__equals_detectron2s():
    inputs, detections = [{"height": 31, "width": 77}, {}], []
    for size in SIZES:
        result = Instances(size)
        corners = torch.rand(9, 2) * torch.tensor([size[1], size[0]]) * 1.2 - 3
        result.pred_boxes = Boxes(torch.cat([corners, corners + torch.rand(9, 2) * 20], 1))
        result.scores, result.pred_classes = torch.rand(9), torch.arange(9)
        detections.append(result)
    outputs = resize_detections(detections, inputs)
    for output, detection, wanted in zip(outputs, detections, inputs, strict=True):
        height, width = detection.image_size
        size = wanted.get("height", height), wanted.get("width", width)
        expected = detector_postprocess(detection, *size).get_fields()
        found = output["instances"].get_fields()
        assert output["instances"].image_size == size
        assert found.keys() == expected.keys()
        boxes = found.pop("pred_boxes").tensor, expected.pop("pred_boxes").tensor
        torch.testing.assert_close(*boxes, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_resize_detections__a_box_that_is_no_number(value):
    result = Instances((20, 50))
    result.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 5.0, 6.0], [value, 0.0, 3.0, 4.0]]))
    result.scores = torch.ones(2)
    with pytest.raises(NonFiniteLossError, match=r"1 of 2 detected boxes are NaN or infinite"):
        resize_detections([result], [{}])


@pytest.mark.parametrize(("input_format", "channels"), [("RGB", 3), ("BGR", 3), ("L", 1)])
def test_draw_training__truth_beside_detections(input_format, channels):
    (inputs,) = random_inputs([(30, 40)], [2], channels=channels)
    detection = Instances((30, 40))
    detection.pred_boxes = inputs["instances"].gt_boxes
    detection.pred_classes = inputs["instances"].gt_classes
    detection.scores = torch.tensor([0.7, 0.5])
    picture = draw_training(inputs, detection, input_format)
    assert picture.shape == (3, 30, 80)
    assert picture.dtype == np.uint8
