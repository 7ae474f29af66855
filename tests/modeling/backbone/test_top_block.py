"""Levels that are added are held against a real run of FPN."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN
from detectron2.modeling import SimpleFeaturePyramid as D2Pyramid
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from detrex.errors import BackboneError, ConfigError
from detrex.modeling.backbone import SimpleFeaturePyramid, TimmBackbone
from detrex.modeling.backbone.top_block import check_top_block, top_levels

LEVELS = ["res2", "res3", "res4", "res5"]


def fpn(names, top_block, **asked):
    network = TimmBackbone("test_resnet", **(asked or {"out_features": names}))
    return FPN(network, names, 8, top_block=top_block).eval()


def is_true(pyramid):
    """Whether all levels have the published channels and strides."""
    shapes = pyramid.output_shape()
    maps = pyramid(torch.zeros(1, 3, 256, 512))
    return all(
        maps[name].shape == (1, s.channels, 256 // s.stride, 512 // s.stride)
        for name, s in shapes.items()
    )


def pool(in_feature):
    block = LastLevelMaxPool()
    block.in_feature = in_feature
    return block


@pytest.mark.parametrize(
    ("names", "top_block"),
    [
        (LEVELS, LastLevelMaxPool()),
        (LEVELS[:3], pool("p4")),
        (LEVELS, LastLevelP6P7(8, 8, "p5")),
        (LEVELS, LastLevelP6P7(96, 8, "res5")),
    ],
)
def test_check_top_block__passes_what_is_true(names, top_block):
    pyramid = fpn(names, top_block)
    check_top_block(pyramid)
    assert is_true(pyramid)


@pytest.mark.parametrize(
    ("pyramid", "match"),
    [
        (
            lambda: fpn(["p3", "p4"], pool("p4"), out_indices=(3, 4)),
            r"takes the map 'p4', which TimmBackbone gives as well .*\(96 channels, stride 32\)",
        ),
        (lambda: fpn(LEVELS, pool("p4")), r"'p4', of stride 16, and its levels go on from 'p5' of"),
        (lambda: fpn(LEVELS, pool("res3")), "'res3', of stride 8"),
    ],
)
def test_check_top_block__refuses_what_is_not(pyramid, match):
    built = pyramid()
    assert not is_true(built)
    with pytest.raises(ConfigError, match=match):
        check_top_block(built)


def test_check_top_block__map_that_is_not_there():
    with pytest.raises(ConfigError, match=r"'p5', which is not there, .*in_feature to 'p4'"):
        check_top_block(fpn(LEVELS[:3], LastLevelMaxPool()))


def test_check_top_block__other_channels_than_those_of_the_map():
    with pytest.raises(BackboneError, match=r"take 'res5' of 96 channels .*with in_channels=96"):
        check_top_block(fpn(LEVELS, LastLevelP6P7(2048, 8)))


class ByValue(LastLevelP6P7):
    """Takes another way by what its map holds, which a map without data does not tell."""

    def forward(self, c5):
        assert c5.isfinite().all()
        return super().forward(c5)


class ByNonzero(LastLevelP6P7):
    """Runs an operation that has no shapes without values."""

    def forward(self, c5):
        c5.nonzero()
        return super().forward(c5)


@pytest.mark.parametrize("kind", [ByValue, ByNonzero])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_check_top_block__that_needs_values(kind, device):
    levels = top_levels(kind(5, 7).to(device).half(), "res5", ShapeSpec(channels=5, stride=32))
    assert [(level.channels, level.stride) for level in levels] == [(7, 64), (7, 128)]
    with pytest.raises(BackboneError, match=r"take 'res5' of 6 channels .*with in_channels=6"):
        top_levels(kind(5, 7).to(device), "res5", ShapeSpec(channels=6, stride=32))


def test_check_top_block__other_modules_pass():
    check_top_block(nn.Linear(1, 1))
    check_top_block(fpn(LEVELS, None))
    net = TimmBackbone("test_vit", out_indices=(5,))  # ours takes its own level of the name
    check_top_block(SimpleFeaturePyramid(net, "p5", 8, (1.0, 0.5), LastLevelMaxPool()))


def test_check_top_block__of_detectron2s_simple_feature_pyramid():
    net = TimmBackbone("test_vit", out_indices=(5,))
    with pytest.raises(ConfigError, match="'p5', which TimmBackbone gives as well"):
        check_top_block(D2Pyramid(net, "p5", 8, (1.0, 0.5), LastLevelMaxPool()))
