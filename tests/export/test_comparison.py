import pytest
import torch

from detrex.errors import ConfigError
from detrex.export.comparison import difference, tolerance


def test_difference__of_maps_is_a_share_of_the_largest_value():
    maps = {"a": torch.tensor([0.0, -4.0]), "b": torch.ones(3)}
    got = {"a": torch.tensor([0.0, -5.0]), "b": torch.ones(3)}
    assert difference(maps, got, 10) == pytest.approx(0.25)
    assert difference(maps, {**got, "b": torch.full((3,), float("nan"))}, 10) == float("inf")


def test_difference__other_shapes_are_an_error():
    with pytest.raises(ConfigError, match="outputs have the shapes"):
        difference({"a": torch.ones(3)}, {"a": torch.ones(4)}, 10)


def _detections(count=20):
    corner = torch.rand(count, 2) * 50
    scores = torch.linspace(0.9, 0.1, count)
    boxes = torch.cat([corner, corner + 20], 1)
    return {"boxes": boxes, "scores": scores, "classes": torch.arange(count) % 3}


def test_difference__of_detections_does_not_depend_on_the_order_of_equals():
    found = _detections()
    order = torch.randperm(20)
    assert difference(found, {name: value[order] for name, value in found.items()}, 100) == 0


@pytest.mark.parametrize(
    ("name", "change", "apart"),
    [("boxes", 5.0, 0.05), ("scores", 0.02, 0.02), ("classes", 3, float("inf"))],
)
def test_difference__of_detections_sees_boxes_scores_and_classes(name, change, apart):
    found = _detections()
    moved = difference(found, {**found, name: found[name] + change}, 100)
    assert moved == pytest.approx(apart)
    assert not moved <= tolerance(found)
