import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from detrex.modeling.dino.inputs import (
    Levels,
    PaddedImages,
    PaddingConstraints,
    group_by_padded_size,
    merge_levels,
    normalize_images,
    prepare_targets,
)
from detrex.modeling.dino.sizes import LevelSizes


class _Backbone(nn.Module):
    def __init__(self, constraints, divisibility=0):
        super().__init__()
        self.padding_constraints = constraints
        self.size_divisibility = divisibility


@pytest.mark.parametrize(
    ("backbone", "rule"),
    [
        (nn.Identity(), PaddingConstraints(0, 0)),
        (_Backbone({}), PaddingConstraints(0, 0)),
        (_Backbone({}, 32), PaddingConstraints(32, 0)),
        (_Backbone({"size_divisibility": 14}, 32), PaddingConstraints(14, 0)),
        (_Backbone({"size_divisiblity": 16, "square_size": 64}), PaddingConstraints(16, 64)),
    ],
)
def test_padding_rule_of__reads_what_the_backbone_publishes(backbone, rule):
    assert PaddingConstraints.of(backbone) == rule


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PaddingConstraints(), (31, 53)),
        (PaddingConstraints(divisibility=16), (32, 64)),
        (PaddingConstraints(square=60), (60, 60)),
        (PaddingConstraints(divisibility=32, square=60), (64, 64)),
    ],
)
def test_padded__holds_all_sizes(rule, expected):
    assert rule.padded([(31, 17), (7, 53)]) == expected


def test_padded__image_larger_than_the_square():
    with pytest.raises(ValueError, match=r"31x53 pixels does not fit the 50x50 square"):
        PaddingConstraints(square=50).padded([(31, 53)])


def test_padded_images__zeros_and_mask_by_definition():
    images = [torch.rand(3, 37, 23) + 1, torch.rand(3, 19, 41) + 1]
    batch = PaddedImages.pad(images, PaddingConstraints(divisibility=4))
    assert batch.tensor.shape == (2, 3, 40, 44)
    for image, padded, (h, w) in zip(images, batch.tensor, batch.sizes, strict=True):
        torch.testing.assert_close(padded[:, :h, :w], image, rtol=0, atol=0)
        assert (padded != 0).sum() == 3 * h * w


@pytest.mark.parametrize("count", [1, 2])
def test_padded_images__nothing_to_pad(count):
    images = [torch.rand(3, 8, 12) for _ in range(count)]
    batch = PaddedImages.pad(images, PaddingConstraints(divisibility=4))
    assert batch.sizes is None
    torch.testing.assert_close(batch.tensor, torch.stack(images), rtol=0, atol=0)
    assert (batch.tensor.data_ptr() == images[0].data_ptr()) == (count == 1)


def test_group_by_padded_size__rounds_before_it_compares():
    images = [torch.zeros(1, h, w) for h, w in [(30, 20), (17, 40), (32, 32), (31, 19)]]
    assert group_by_padded_size(images, PaddingConstraints()) == [[0], [1], [2], [3]]
    assert group_by_padded_size(images, PaddingConstraints(divisibility=32)) == [[0, 2, 3], [1]]
    assert group_by_padded_size(images, PaddingConstraints(square=64)) == [[0, 1, 2, 3]]


def test_merge_levels__restores_the_order_and_masks_what_it_adds():
    small = Levels([torch.ones(2, 3, 2, 5)], LevelSizes.of_batch([(2, 5)], 2, (16, 40)))
    large = Levels([torch.full((1, 3, 4, 3), 2.0)], LevelSizes.of_batch([(4, 3)], 1, (32, 24)))
    merged = merge_levels([small, large], [[0, 2], [1]])
    assert merged.features[0].shape == (3, 3, 4, 5)
    for index, value, (h, w) in [(0, 1.0, (2, 5)), (1, 2.0, (4, 3)), (2, 1.0, (2, 5))]:
        expected_mask = torch.ones(4, 5, dtype=torch.bool)
        expected_mask[:h, :w] = False
        assert torch.equal(merged.sizes.masks(torch.device("cpu"))[0][index], expected_mask)
        expected = torch.where(expected_mask, 0.0, value).expand(3, -1, -1)
        torch.testing.assert_close(merged.features[0][index], expected, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_normalize_images__any_number_of_channels(channels):
    image = torch.randint(256, (channels, 7, 11), dtype=torch.uint8)
    mean = torch.arange(channels, dtype=torch.float64).view(-1, 1, 1)
    std = mean + 2
    (normalized,) = normalize_images([{"image": image}], mean, std)
    assert normalized.dtype == torch.float64
    for c in range(channels):
        expected = (image[c].double() - c) / (c + 2)
        torch.testing.assert_close(normalized[c], expected, rtol=1e-12, atol=0)


def test_normalize_images__flips_before_it_normalises():
    image = torch.randint(256, (3, 7, 11), dtype=torch.uint8)
    mean, std = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 5.0, 7.0])
    shaped = (mean.view(-1, 1, 1), std.view(-1, 1, 1))
    (flipped,) = normalize_images([{"image": image}], *shaped, True)
    for c in range(3):
        expected = (image[2 - c].float() - mean[c]) / std[c]
        torch.testing.assert_close(flipped[c], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(1, 7, 11), (7, 11), (7, 11, 3)])
def test_normalize_images__wrong_channels(shape):
    with pytest.raises(ValueError, match=r"pixel_mean has 3 value\(s\)"):
        normalize_images([{"image": torch.zeros(shape)}], torch.zeros(3, 1, 1), torch.ones(3, 1, 1))


def _inputs(boxes, classes, size=(20, 50)):
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return [{"image": torch.zeros(3, *size), "instances": instances}]


def test_prepare_targets__cxcywh_in_shares_of_the_image():
    (target,) = prepare_targets(
        _inputs([[10, 5, 30, 15]], [4]), 5, torch.zeros((), dtype=torch.float64)
    )
    expected = torch.tensor([[0.4, 0.5, 0.4, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(target["boxes"], expected, rtol=1e-7, atol=0)
    assert target["labels"].tolist() == [4]


def test_prepare_targets__no_objects():
    (target,) = prepare_targets(_inputs([], []), 5, torch.zeros(()))
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)


def test_prepare_targets__without_annotations():
    with pytest.raises(
        ValueError, match=r"training needs 'instances'.*got a dict with \['image'\]"
    ):
        prepare_targets([{"image": torch.zeros(3, 5, 7)}], 5, torch.zeros(()))


@pytest.mark.parametrize("label", [-1, 5])
def test_prepare_targets__class_out_of_range(label):
    with pytest.raises(ValueError, match=f"has class {label}, but the detector has num_classes=5"):
        prepare_targets(_inputs([[0, 0, 1, 1]], [label]), 5, torch.zeros(()))
