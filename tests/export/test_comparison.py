import pytest
import torch

from detrex.errors import ConfigError
from detrex.export.comparison import (
    DETECTION_TOLERANCE,
    difference_of_choices,
    difference_of_detections,
    difference_of_maps,
)

INF = float("inf")


def test_maps__a_share_of_the_largest_value():
    maps = {"a": torch.tensor([0.0, -4.0]), "b": torch.ones(3)}
    got = {"a": torch.tensor([0.0, -5.0]), "b": torch.ones(3)}
    assert difference_of_maps(maps, got) == pytest.approx(0.25)
    assert difference_of_maps(maps, {**got, "b": torch.full((3,), float("nan"))}) == INF


def test_maps__other_shapes_are_an_error():
    with pytest.raises(ConfigError, match="outputs have the shapes"):
        difference_of_maps({"a": torch.ones(3)}, {"a": torch.ones(4)})


def _queries(count=40, classes=3):
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(count, 2, generator=generator) * 50
    logits = torch.rand(count, classes, generator=generator) * 8 - 4
    logits[3, 1] = logits[7, 1] = 5.0  # the two best, equal but for their boxes
    return logits, torch.cat([corner, corner + 20], 1)


def _best(logits, boxes, count=20):
    scores, index = logits.flatten().sigmoid().topk(count)
    return {"boxes": boxes[index // 3], "scores": scores, "classes": index % 3}


def test_detections__equals_may_change_places():
    logits, boxes = _queries()
    found = _best(logits, boxes)
    found["boxes"][:2] = found["boxes"][:2].flip(0)
    assert difference_of_detections(logits, boxes, found, 100) < 1e-5


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda found: found["boxes"][4].add_(5.0), 0.01),
        (lambda found: found["scores"][4].mul_(0.97), 0.003),
        (lambda found: found["classes"].fill_(3), INF),
        (lambda found: found["boxes"][4].fill_(float("nan")), INF),
        (lambda found: found["boxes"][1].copy_(found["boxes"][0]), 0.01),
        (lambda found: found["boxes"].copy_(found["boxes"].flip(0)), 0.01),
    ],
    ids=["a box", "a score", "no class", "nan", "one of two equals twice", "others' boxes"],
)
def test_detections__each_must_be_right(change, least):
    logits, boxes = _queries()
    found = _best(logits, boxes)
    change(found)
    apart = difference_of_detections(logits, boxes, found, 100)
    assert apart >= least > DETECTION_TOLERANCE


def test_choices__by_the_scores_of_what_was_chosen():
    scores = torch.tensor([0.0, 5.0, 5.001, 10.0, -float("inf"), -float("inf")])
    own = torch.tensor([3, 2, 1, 4])

    def apart(*got):
        return difference_of_choices(scores, own, torch.tensor(got))

    assert apart(3, 2, 1, 4) == apart(3, 2, 1, 5) == 0
    assert apart(3, 1, 2, 4) == pytest.approx(1e-4, 0.1)
    assert apart(3, 2, 0, 4) == pytest.approx(0.5)
    assert difference_of_choices(torch.full((3,), -INF), own[1:3], own[1:3].flip(0)) == 0
    assert apart(3, 2, 2, 4) == apart(3, 2, 1) == apart(3, 2, 4, 1) == INF
