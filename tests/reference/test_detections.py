"""The comparison of detections lets ties swap and nothing else."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from tests.reference.detections import assert_same_detections

SIZE = (60, 80)
TIE = 1e-6


def _detections(image=0, count=6):
    """Six detections; the scores of ranks 2 and 3, and those of 4 and 5, are near-equal."""
    corners = torch.arange(4.0 * count).reshape(count, 4) + torch.tensor([0.0, 0.0, 20.0, 20.0])
    return _instances(
        corners + 7 * image,
        torch.tensor([0.9, 0.7, 0.5 + TIE, 0.5, 0.3 + TIE, 0.3])[:count],
        torch.tensor([0, 1, 2, 2, 0, 1])[:count],
    )


def _instances(boxes, scores, classes):
    result = Instances(SIZE)
    result.pred_boxes, result.scores, result.pred_classes = Boxes(boxes), scores, classes
    return result


def _reordered(order, scores=None):
    """The detections in another order, with the scores of that place or of their own."""
    found = _detections()[torch.tensor(order)]
    found.scores = _detections().scores[: len(order)] if scores is None else torch.tensor(scores)
    return found


def _with(field, rank, value):
    found = _detections()
    found.get(field)[rank] = value
    return found


def _wrong_box(rank=1, coordinate=2):
    found = _detections()
    found.pred_boxes.tensor[rank, coordinate] += 0.05
    return found


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [0, 1, 3, 2, 4, 5], [0, 1, 3, 2, 5, 4]])
def test_assert_same_detections__ties_may_swap(order):
    assert_same_detections(_reordered(order), _detections())


def test_assert_same_detections__nothing_equals_nothing():
    assert_same_detections(_detections(count=0), _detections(count=0))


@pytest.mark.parametrize(
    "broken",
    [
        _wrong_box(),
        _wrong_box(rank=5, coordinate=0),
        _with("pred_classes", 2, 1),
        _with("pred_classes", 5, 0),
        _with("scores", 0, 0.91),
        _with("scores", 1, float("nan")),
        _detections(image=1),
        _detections(count=5),
        _reordered([1, 0, 2, 3, 4, 5]),
        _reordered([1, 0, 2, 3, 4, 5], [0.7, 0.9, 0.5, 0.5, 0.3, 0.3]),
        _reordered([0, 1, 2, 2, 4, 5]),
    ],
    ids=[
        "a wrong box",
        "a wrong last box",
        "a wrong class",
        "a wrong last class",
        "a wrong score",
        "no number",
        "another image",
        "one missing",
        "boxes of other scores",
        "not ranked",
        "one twice",
    ],
)
def test_assert_same_detections__says_what_differs(broken):
    for pair in ((broken, _detections()), (_detections(), broken)):
        with pytest.raises(AssertionError):
            assert_same_detections(*pair)


@pytest.mark.parametrize(("limit", "same"), [(5, True), (None, False), (6, False)])
def test_assert_same_detections__ties_at_the_cut(limit, same):
    """Ranks 4 and 5 tie, and one of them is kept."""
    pair = _reordered([0, 1, 2, 3, 4]), _reordered([0, 1, 2, 3, 5])
    if same:
        assert_same_detections(*pair, limit=limit)
    else:
        with pytest.raises(AssertionError, match=r"\('actual', 4\), \('expected', 4\)"):
            assert_same_detections(*pair, limit=limit)


def test_assert_same_detections__above_the_cut_nothing_is_allowed():
    with pytest.raises(AssertionError, match=r"\('actual', 1\)"):
        assert_same_detections(_wrong_box(), _detections(), limit=6)


def test_assert_same_detections__size_of_the_image():
    other = Instances((60, 81), **_detections().get_fields())
    with pytest.raises(AssertionError):
        assert_same_detections(other, _detections())
