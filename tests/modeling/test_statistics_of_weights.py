"""The statistics that belong to weights, against what timm's and torchvision's transforms do."""

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from torchvision.models import ResNet50_Weights, VGG16_Weights, ViT_B_16_Weights
from torchvision.transforms.functional import to_pil_image

from detrex.errors import ConfigError
from detrex.modeling.backbone.torchvision_backbone.weights import find_weights
from detrex.modeling.pixel_statistics import CAFFE, IMAGENET, PixelStatistics


def _normalized(preprocess, image):
    mean = torch.tensor(preprocess.pixel_mean).view(-1, 1, 1)
    std = torch.tensor(preprocess.pixel_std).view(-1, 1, 1)
    return (image.float() - mean) / std


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "vit_tiny_patch16_224",
        "vit_base_patch16_clip_224",
        "vit_small_patch16_dinov3",
        "darknet53",
    ],
)
def test_from_unit_range__normalises_as_its_transform(name):
    with torch.device("meta"):
        network = timm.create_model(name)
    config = {**resolve_model_data_config(network), "input_size": (3, 8, 8), "crop_pct": 1.0}
    image = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    expected = create_transform(**config)(to_pil_image(image))
    preprocess = PixelStatistics.from_unit_range(network.pretrained_cfg)
    torch.testing.assert_close(_normalized(preprocess, image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pretrained_cfg", [{}, {"mean": None, "std": None, "url": ""}])
def test_from_unit_range__imagenet_where_nothing_is_said(pretrained_cfg):
    assert PixelStatistics.from_unit_range(pretrained_cfg) == IMAGENET


@pytest.mark.parametrize(
    "weights",
    [
        ResNet50_Weights.IMAGENET1K_V2,
        ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
        VGG16_Weights.IMAGENET1K_FEATURES,
    ],
)
def test_find_weights__normalises_as_its_transform(weights):
    transform = weights.transforms()
    size = transform.crop_size[0]
    image = torch.randint(256, (3, size, size), dtype=torch.uint8)
    transform.resize_size = [size]
    name = type(weights).__name__.removesuffix("_Weights").lower()
    preprocess = find_weights(weights, name).statistics
    torch.testing.assert_close(
        _normalized(preprocess, image), transform(image), rtol=1e-4, atol=1e-4
    )


def test_imagenet__equals_the_statistics_of_torchvision_to_the_last_bit():
    given = find_weights(ResNet50_Weights.IMAGENET1K_V1, "resnet50").statistics
    assert given == IMAGENET
    assert (CAFFE.pixel_mean, CAFFE.channel_order) == (IMAGENET.pixel_mean[::-1], "BGR")


@pytest.mark.parametrize(
    ("in_channels", "mean"),
    [(1, (4.0,)), (2, (1.0, 4.0)), (3, (1.0, 4.0, 7.0)), (5, (1.0, 4.0, 7.0, 1.0, 4.0))],
)
def test_with_channels__mean_or_repeated_in_order(in_channels, mean):
    preprocess = PixelStatistics((1, 4, 7), (2, 2, 5), "BGR").with_channels(in_channels)
    assert preprocess.pixel_mean == mean
    assert len(preprocess.pixel_std) == in_channels
    assert preprocess.channel_order == "BGR"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (((1, 2), (1,)), r"one value per channel each, got \[1.0, 2.0\] and \[1.0\]"),
        (((), ()), "one value per channel each"),
        (((1,), (0,)), r"pixel_std must be above 0, got \[0.0\]"),
        (((1,), (1,), "YUV"), "must be RGB or BGR, got 'YUV'"),
    ],
)
def test_init__refuses(given, message):
    with pytest.raises(ConfigError, match=message):
        PixelStatistics(*given)


def test_init__lists_become_tuples():
    assert hash(PixelStatistics([1, 2], [3, 4])) == hash(PixelStatistics((1.0, 2.0), (3.0, 4.0)))


@pytest.mark.parametrize("mean", ["x", 0.5, ("a", "b", "c")])
def test_from_unit_range__description_without_numbers(mean):
    with pytest.raises(ConfigError, match="mean of the description of weights must be numbers"):
        PixelStatistics.from_unit_range({"mean": mean})
