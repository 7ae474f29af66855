"""What a detector takes from its backbone, and what it says where the two do not fit."""

import copy
import logging

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import ConfigError
from detrex.layers import PositionEmbeddingSine
from detrex.modeling.backbone import BasicStem, ResNet, SimpleFeaturePyramid, TorchvisionResNet
from detrex.modeling.backbone.preprocess import CAFFE, IMAGENET, Preprocess
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.dino.wiring import (
    PixelStatistics,
    connect_neck,
    pixel_statistics,
    published_shapes,
    size_position_embedding,
    weigh_losses,
)
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.neck import ChannelMapper
from tests.reference.detections import assert_same_detections
from tests.reference.tiny_dino import TinyBackbone, random_inputs, tiny_dino

LOGGER = "detrex.modeling.dino.wiring"


def _neck(channels=8, names=("p3", "p4", "p5")):
    shapes = {name: ShapeSpec(channels=channels) for name in names}
    return ChannelMapper(shapes, list(names), out_channels=32, num_outs=4)


def _backbone(preprocess):
    backbone = TinyBackbone(in_channels=len(preprocess.pixel_mean))
    backbone.preprocess = preprocess
    return backbone


class _Silent(Backbone):
    def forward(self, x):
        return {}


class _NoBackbone(nn.Module):
    def output_shape(self):
        return {"p4": ShapeSpec(channels=3, stride=16), "p3": ShapeSpec(channels=5, stride=8)}


def test_connect_neck__sizes_it():
    neck = ChannelMapper(out_channels=32, num_outs=4)
    connect_neck(TinyBackbone(), neck)
    assert neck.in_features == ["p3", "p4", "p5"]
    assert len(neck(TinyBackbone()(torch.zeros(1, 3, 64, 64)))) == 4


def test_connect_neck__any_module_that_tells_its_shapes():
    neck = ChannelMapper(out_channels=32)
    connect_neck(_NoBackbone(), neck)
    assert neck.in_features == ["p3", "p4"]


def test_connect_neck__another_kind_of_neck_is_left_alone():
    connect_neck(TinyBackbone(), nn.Identity())


@pytest.mark.parametrize("backbone", [nn.Identity(), _Silent()])
def test_connect_neck__a_backbone_that_publishes_nothing(backbone):
    assert published_shapes(backbone) is None
    connect_neck(backbone, _neck(channels=3))
    with pytest.raises(ConfigError, match=r"does not say which maps it gives \(output_shape\)"):
        connect_neck(backbone, ChannelMapper())


@pytest.mark.parametrize("neck", [_neck(channels=16), _neck(names=("res3", "p4", "p5"))])
def test_connect_neck__disagreement_shows_both_sides(neck):
    pattern = r"expects maps with the channels {.*}, but the backbone TinyBackbone gives {'p3': 8,"
    with pytest.raises(ConfigError, match=pattern):
        connect_neck(TinyBackbone(), neck)


def test_size_position_embedding__fills_in_only_what_is_left_out():
    embedding, given = PositionEmbeddingSine(None), PositionEmbeddingSine(6)
    for module in (embedding, given, nn.Identity()):
        size_position_embedding(module, 32)
    assert (embedding.num_pos_feats, given.num_pos_feats) == (16, 6)
    with pytest.raises(ConfigError, match=r"embed_dim must be a multiple of 4 .* got 30"):
        size_position_embedding(PositionEmbeddingSine(None), 30)


def test_pixel_statistics__auto_takes_those_of_the_backbone(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    preprocess = Preprocess((1, 2, 3, 4), (5, 6, 7, 8))
    used = pixel_statistics(_backbone(preprocess), "auto", "auto", "BGR")
    assert used == PixelStatistics((1, 2, 3, 4), (5, 6, 7, 8), False)
    assert not caplog.records


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("auto", "auto", (CAFFE.pixel_mean, CAFFE.pixel_std)),
        ([1, 2, 3], "auto", ((3, 2, 1), CAFFE.pixel_std)),
        ("auto", [1, 2, 4], (CAFFE.pixel_mean, (4, 2, 1))),
    ],
)
def test_pixel_statistics__auto_flips_to_the_order_of_the_backbone(mean, std, expected, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    used = pixel_statistics(_backbone(CAFFE), mean, std, "RGB")
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
def test_pixel_statistics__by_hand_and_near_says_nothing(
    preprocess, mean, std, input_format, caplog
):
    caplog.set_level(logging.INFO, LOGGER)
    used = pixel_statistics(_backbone(preprocess), mean, std, input_format)
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
def test_pixel_statistics__by_hand_wins_with_a_warning_that_shows_both(
    mean, std, input_format, caplog
):
    used = pixel_statistics(_backbone(IMAGENET), mean, std, input_format)
    assert (used.mean, used.flips) == (tuple(mean), False)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    for text in (str(mean), input_format, "TinyBackbone publishes [123.675, 116.28, 103.53]"):
        assert text in message


def test_pixel_statistics__backbone_that_publishes_nothing(caplog):
    used = pixel_statistics(TinyBackbone(), [1, 2], [3, 4], "BGR")
    assert used == PixelStatistics((1, 2), (3, 4), False)
    assert not caplog.records
    used = pixel_statistics(TinyBackbone(), "auto", "auto", "BGR")
    assert used == PixelStatistics(IMAGENET.pixel_mean, IMAGENET.pixel_std, True)
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
def test_pixel_statistics__refuses(mean, std, message):
    with pytest.raises(ConfigError, match=message):
        pixel_statistics(_backbone(IMAGENET), mean, std, "RGB")


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


@pytest.mark.parametrize(
    ("weights", "losses", "missing"),
    [
        ({"loss_class": 1.0, "loss_bbox_0": 5.0}, ("class", "boxes"), "loss_bbox, loss_giou"),
        ({"loss_class": 1.0, "loss_bbox": 5.0}, ("class", "boxes"), "loss_giou"),
        ({"loss_class": 1.0}, ("class",), None),
        ({"loss_class": 1.0, "loss_bbox": 0.0, "loss_giou": 2.0}, ("class", "boxes"), None),
        ({}, ("class", "boxes"), None),
    ],
)
def test_weigh_losses__a_loss_without_a_weight_is_told(weights, losses, missing, caplog):
    criterion = SetCriterion(5, HungarianMatcher(), weights, losses=losses)
    weigh_losses(criterion, 3)
    assert criterion.weight_dict.get("loss_class_1") == weights.get("loss_class")
    told = [record.getMessage() for record in caplog.records]
    expected = f"weight_dict has no weight for {missing}, which counts with 1; "
    assert [message[: len(expected)] for message in told] == ([expected] if missing else [])


def test_weigh_losses__criterion_of_another_make():
    criterion = nn.Identity()
    weigh_losses(criterion, 3)
    assert not hasattr(criterion, "weight_dict")
    criterion.weight_dict = {"loss_mask": 2.0}
    weigh_losses(criterion, 2)
    assert set(criterion.weight_dict) == {
        f"loss_mask{s}" for s in ("", "_0", "_enc", "_dn", "_dn_0")
    }
