"""Pyramids over another backbone: which map each takes, and what cannot stand below them."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

from detrex.config.backbone_node import published_shapes
from detrex.config.pyramids import build_around, put_below_fpn, put_below_plain_pyramid
from detrex.errors import ConfigError
from detrex.modeling.backbone import (
    ConvNeXt,
    FocalNet,
    InternImage,
    TimmBackbone,
    TorchvisionBackbone,
)
from detrex.modeling.backbone.top_block import check_top_block

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def _fpn(top, *names):
    return L(FPN)(bottom_up=None, in_features=list(names), out_channels=8, top_block=top)


def _timm(**keywords):
    return L(TimmBackbone)(model_name="test_resnet", **keywords)


def _levels(holder, inner, built):
    shapes = published_shapes(build_around(holder, inner, built))
    return {name: shape.stride for name, shape in shapes.items()}


def test_put_below_fpn__asks_for_the_strides_of_the_old_names():
    holder = _fpn(L(LastLevelMaxPool)(), "res2", "res3", "res4", "res5")
    built = put_below_fpn(holder, _timm(), None)
    assert list(holder.in_features) == list(STRIDES)
    assert list(_levels(holder, "bottom_up", built)) == ["p2", "p3", "p4", "p5", "p6"]


@pytest.mark.parametrize(
    ("asked", "in_feature", "levels"),
    [
        ({"out_strides": (8, 16, 32)}, "res5", ["p3", "p4", "p5", "p6", "p7"]),
        ({"out_strides": (8, 16)}, "res4", ["p3", "p4", "p5", "p6"]),
    ],
)
def test_put_below_fpn__block_over_the_backbones_last_map(asked, in_feature, levels):
    top = L(LastLevelP6P7)(in_channels=2048, out_channels="${..out_channels}")
    holder = _fpn(top, "res3", "res4", "res5")
    built = put_below_fpn(holder, _timm(**asked), None)
    assert holder.top_block.get("in_feature", "res5") == in_feature
    assert holder.top_block.in_channels == built.output_shape()[in_feature].channels
    assert list(_levels(holder, "bottom_up", built)) == levels


def test_put_below_fpn__block_over_its_own_last_level():
    top = L(LastLevelP6P7)(in_channels=8, out_channels=8, in_feature="p5")
    holder = _fpn(top, "res3", "res4", "res5")
    built = put_below_fpn(holder, _timm(out_strides=(4, 8, 16)), None)
    assert (holder.top_block.in_feature, holder.top_block.in_channels) == ("p4", 8)
    assert list(holder.bottom_up.out_strides) == [8, 16]
    assert _levels(holder, "bottom_up", built) == {"p3": 8, "p4": 16, "p5": 32, "p6": 64}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"out_strides": (4, 16, 32)}, r"strides are powers of 2 and double.*res4 \(stride 16\)"),
        ({"out_strides": (4, 8, 16)}, "LastLevelMaxPool takes p5, which .* does not lead to"),
    ],
)
def test_put_below_fpn__maps_that_do_not_suit(asked, message):
    holder = _fpn(L(LastLevelMaxPool)(), *STRIDES)
    with pytest.raises(ConfigError, match=message):
        put_below_fpn(holder, _timm(**asked), None)


def test_put_below_fpn__an_output_with_the_name_of_its_own_level():
    nodes = {f"layer{i}": f"p{i + 1}" for i in (1, 2, 3, 4)}
    call = L(TorchvisionBackbone)(model_name="resnet18", return_nodes=nodes)
    holder = _fpn(L(LastLevelMaxPool)(), *STRIDES)
    with pytest.raises(ConfigError, match=r"level p5 of FPN, but .* has an output of that name"):
        put_below_fpn(holder, call, None)


def test_put_below_fpn__another_pyramid():
    other = _fpn(L(LastLevelMaxPool)(), *STRIDES)
    other.bottom_up = _timm(out_strides=(4, 8, 16, 32))
    holder = _fpn(L(LastLevelMaxPool)(), *STRIDES)
    with pytest.raises(ConfigError, match=r"of that name: a pyramid takes the place of another by"):
        put_below_fpn(holder, other, None)


def test_put_below_fpn__a_last_map_with_the_name_of_a_level():
    top = L(LastLevelP6P7)(in_channels=2048, out_channels=8)
    holder = _fpn(top, "res3", "res4", "res5")
    with pytest.raises(ConfigError, match=r"level p4 of FPN, but .* has an output of that name"):
        put_below_fpn(holder, _timm(out_indices=(2, 3, 4)), None)


@pytest.mark.parametrize(
    "backbone",
    [
        L(ConvNeXt)(depths=[1, 1, 1, 1], dims=[8, 16, 24, 40]),
        L(FocalNet)(embed_dim=8, depths=[1, 1, 1, 1]),
        L(InternImage)(core_op="DCNv3", channels=8, depths=[1, 1, 1, 1], groups=[1, 1, 2, 4]),
    ],
    ids=lambda call: call._target_.__name__,
)
def test_put_below_fpn__networks_that_call_their_maps_as_it_calls_its_levels(backbone):
    top = L(LastLevelP6P7)(in_channels=2048, out_channels=8)
    holder = _fpn(top, "res3", "res4", "res5")
    built = put_below_fpn(holder, backbone, None)
    assert list(holder.in_features) == ["res3", "res4", "res5"]
    assert holder.top_block.in_channels == built.output_shape()["res5"].channels
    check_top_block(build_around(holder, "bottom_up", built))  # what a run refuses


def test_put_below_plain_pyramid__takes_one_map_and_pads_to_its_own_need():
    net = L(ViT)(img_size=64, embed_dim=12, depth=1, num_heads=1, out_feature="last")
    holder = L(SimpleFeaturePyramid)(
        net=net, in_feature="${.net.out_feature}", out_channels=8, scale_factors=[2.0, 1.0, 0.5]
    )
    holder.square_pad = 1024
    built = put_below_plain_pyramid(holder, _timm(out_strides=(8, 16, 32)), None)
    assert (holder.in_feature, holder.square_pad) == ("res4", 0)
    assert list(holder.net.out_strides) == [16]
    around = build_around(holder, "net", built)
    assert around.padding_constraints == {"size_divisibility": 32, "square_size": 0}
    other = L(ViT)(img_size=64, embed_dim=8, depth=1, num_heads=1, out_feature="last")
    put_below_plain_pyramid(holder, other, None)
    assert holder.in_feature == "last"


def test_put_below_plain_pyramid__no_map_of_its_stride():
    holder = L(SimpleFeaturePyramid)(net=None, in_feature="last", out_channels=8)
    with pytest.raises(ConfigError, match=r"stride 16, but TimmBackbone gives res5 \(stride 32\)"):
        put_below_plain_pyramid(holder, _timm(out_strides=(32,)), None)


def test_build_around__a_refusal_is_one_sentence():
    holder = _fpn(None, "res9")
    built = put_below_fpn(_fpn(None, "res3"), _timm(), None)
    with pytest.raises(ConfigError, match=r"FPN cannot be built over TimmBackbone: KeyError"):
        build_around(holder, "bottom_up", built)
