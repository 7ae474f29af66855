"""How images are normalised for a backbone, and what is said where config and backbone differ."""

import copy
import logging

import pytest
import torch
from detectron2.modeling import FPN

from detrex.errors import ConfigError
from detrex.modeling.backbone import (
    BasicStem,
    ResNet,
    SimpleFeaturePyramid,
    TimmBackbone,
    TorchvisionResNet,
)
from detrex.modeling.pixel_statistics import (
    CAFFE,
    IMAGENET,
    Normalization,
    PixelStatistics,
    resolve_pixel_statistics,
)
from tests.reference.detections import assert_same_detections
from tests.reference.tiny_dino import TinyBackbone, random_inputs, tiny_dino

LOGGER = "detrex.modeling.pixel_statistics"


def _backbone(preprocess):
    backbone = TinyBackbone(in_channels=len(preprocess.pixel_mean))
    backbone.preprocess = preprocess
    return backbone


def test_resolve_pixel_statistics__auto_takes_those_of_the_backbone(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    preprocess = PixelStatistics((1, 2, 3, 4), (5, 6, 7, 8))
    used = resolve_pixel_statistics(_backbone(preprocess), "auto", "auto", "BGR")
    assert used == Normalization((1, 2, 3, 4), (5, 6, 7, 8), False)
    assert not caplog.records


def test_resolve_pixel_statistics__auto_takes_those_of_the_network_in_a_pyramid(caplog):
    network = TimmBackbone("test_resnet", out_features=["res3", "res4"])
    used = resolve_pixel_statistics(FPN(network, ["res3", "res4"], 8), "auto", "auto", "RGB")
    assert used == Normalization((127.5,) * 3, (127.5,) * 3, False)
    assert not caplog.records


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("auto", "auto", (CAFFE.pixel_mean, CAFFE.pixel_std)),
        ([1, 2, 3], "auto", ((3, 2, 1), CAFFE.pixel_std)),
        ("auto", [1, 2, 4], (CAFFE.pixel_mean, (4, 2, 1))),
    ],
)
def test_resolve_pixel_statistics__auto_flips_to_the_order_of_the_backbone(
    mean, std, expected, caplog
):
    caplog.set_level(logging.INFO, LOGGER)
    used = resolve_pixel_statistics(_backbone(CAFFE), mean, std, "RGB")
    assert used == (*expected, True)
    assert "Images come as RGB and are flipped to the BGR of TinyBackbone." in caplog.text


@pytest.mark.parametrize(
    ("preprocess", "mean", "std", "input_format"),
    [
        (IMAGENET, [123.0, 116.5, 104.0], [58.0, 57.0, 57.5], "RGB"),
        (CAFFE, [103.53, 116.28, 123.675], [1, 1, 1], "BGR"),
        (IMAGENET, [123.675, 116.28, 103.53], "auto", "RGB"),
    ],
)
def test_resolve_pixel_statistics__by_hand_and_near_says_nothing(
    preprocess, mean, std, input_format, caplog
):
    caplog.set_level(logging.INFO, LOGGER)
    used = resolve_pixel_statistics(_backbone(preprocess), mean, std, input_format)
    assert used.mean == tuple(mean)
    assert not used.flips
    assert not caplog.records


@pytest.mark.parametrize(
    ("mean", "std", "input_format"),
    [
        ([127.5, 127.5, 127.5], [127.5, 127.5, 127.5], "RGB"),
        ([123.675, 116.28, 103.53], [1, 1, 1], "RGB"),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "RGB"),
        ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], "BGR"),
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "BGR"),
        ([127.5, 127.5, 127.5], "auto", "RGB"),
    ],
)
def test_resolve_pixel_statistics__by_hand_wins_with_a_warning_that_shows_both(
    mean, std, input_format, caplog
):
    used = resolve_pixel_statistics(_backbone(IMAGENET), mean, std, input_format)
    assert (used.mean, used.flips) == (tuple(mean), False)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    for text in (str(mean), input_format, "TinyBackbone publishes [123.675, 116.28, 103.53]"):
        assert text in message


def test_resolve_pixel_statistics__backbone_that_publishes_nothing(caplog):
    used = resolve_pixel_statistics(TinyBackbone(), [1, 2], [3, 4], "BGR")
    assert used == Normalization((1, 2), (3, 4), False)
    assert not caplog.records
    used = resolve_pixel_statistics(TinyBackbone(), "auto", "auto", "BGR")
    assert used == Normalization(IMAGENET.pixel_mean, IMAGENET.pixel_std, True)
    assert "TinyBackbone does not publish" in caplog.records[0].getMessage()
    assert "pixel_mean=[123.675, 116.28, 103.53]" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ("atuo", "auto", "pixel_mean must be \"auto\" or one value per channel, got 'atuo'"),
        ([1, 2, 3], [1], r"len\(pixel_mean\) is 3, len\(pixel_std\) is 1"),
        ([1], [1], r"len\(pixel_std\) is 1, the number of channels of TinyBackbone is 3"),
    ],
)
def test_resolve_pixel_statistics__refuses(mean, std, message):
    with pytest.raises(ConfigError, match=message):
        resolve_pixel_statistics(_backbone(IMAGENET), mean, std, "RGB")


def test_dino__auto_equals_the_same_numbers_by_hand_on_flipped_images():
    inputs = random_inputs([(64, 80)])
    flipped = [{**inputs[0], "image": inputs[0]["image"].flip(0)}]
    torch.manual_seed(0)
    auto = tiny_dino(backbone=_backbone(CAFFE), pixel_mean="auto", pixel_std="auto").eval()
    by_hand = copy.deepcopy(auto)
    by_hand.flips_channels = False
    with torch.no_grad():
        (found,), (expected,) = auto(inputs), by_hand(flipped)
    assert auto.flips_channels
    assert auto.pixel_mean.flatten().tolist() == pytest.approx(CAFFE.pixel_mean)
    assert_same_detections(found["instances"], expected["instances"])


@pytest.mark.parametrize("channels", [1, 4])
def test_resnet__publishes_the_convention_for_its_channels(channels):
    stem = BasicStem(in_channels=channels, out_channels=64, norm="BN")
    stages = ResNet.make_default_stages(depth=18, norm="BN")
    assert ResNet(stem, stages).preprocess == IMAGENET.with_channels(channels)


def test_torchvision_resnet__publishes_the_statistics_of_torchvision():
    assert TorchvisionResNet("resnet18", True).preprocess == IMAGENET


def test_simple_feature_pyramid__passes_on_what_its_network_publishes():
    net = TinyBackbone()
    options = {"in_feature": "p4", "out_channels": 8, "scale_factors": (1.0,)}
    assert SimpleFeaturePyramid(net, **options).preprocess is None
    net.preprocess = CAFFE
    assert SimpleFeaturePyramid(net, **options).preprocess == CAFFE
