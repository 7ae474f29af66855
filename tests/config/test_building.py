import re

import pytest
from detectron2.config import LazyCall as L
from detectron2.modeling import FPN, SimpleFeaturePyramid, SwinTransformer, ViT
from torch import nn

from detrex.config.building import (
    build_on_meta,
    build_part,
    first_line,
    first_sentence,
    refused_strides,
    with_full_stop,
)
from detrex.errors import BackboneError, ConfigError
from detrex.modeling.backbone import ConvNeXt, TorchvisionBackbone


def refuse(error):
    raise error


def test_build_part__gives_what_the_call_gives():
    assert build_part(L(nn.Linear)(in_features=3, out_features=5), "model").weight.shape == (5, 3)


def test_build_part__says_what_and_where():
    call = L(nn.GroupNorm)(num_groups=3, num_channels=7)
    message = r"^model\.norm cannot be built: ValueError: num_.* \(normalization\.py, line \d+\)\.$"
    with pytest.raises(ConfigError, match=message) as info:
        build_part(call, "model.norm")
    assert isinstance(info.value.__cause__, ValueError)


def test_build_part__own_errors_stay():
    with pytest.raises(BackboneError, match=r"^mine$"):
        build_part(L(refuse)(error=BackboneError("mine")), "model")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("a\nb"), "KeyError: 'a\\nb'"),
        (ValueError("\n x.\ny"), "ValueError: x"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_first_line__one_line(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(("text", "told"), [("a. b?", "a. b?"), ("a.", "a."), ("a", "a.")])
def test_first_sentence__one_mark_at_its_end(text, told):
    assert first_sentence(ValueError(text)) == f"ValueError: {told}"
    assert with_full_stop("a?") == "a?"


@pytest.mark.parametrize(
    ("names", "strides"),
    [(["res5", "res4", "res3"], r"\[32, 16, 8\]"), (["res2", "res4"], r"\[4, 16\]")],
)
def test_refused_strides__fpn(names, strides):
    net = L(ConvNeXt)(depths=[1, 1, 1, 1], dims=[4, 4, 4, 4], out_features=names)
    call = L(FPN)(bottom_up=net, in_features="${.bottom_up.out_features}", out_channels=4)
    message = rf"^FPN takes maps of strides from fine to coarse, .*, got {strides}: put in_features"
    with pytest.raises(AssertionError) as info:
        build_on_meta(call)
    assert re.match(message, refused_strides(info.value))
    with pytest.raises(ConfigError, match="got " + strides):
        build_part(call, "model.backbone")


def test_refused_strides__simple_feature_pyramid():
    net = L(ViT)(img_size=28, patch_size=14, depth=1, embed_dim=8, num_heads=1, out_feature="a")
    call = L(SimpleFeaturePyramid)(
        net=net, in_feature="a", out_channels=8, scale_factors=(4.0, 2.0, 1.0)
    )
    with pytest.raises(AssertionError) as info:
        build_on_meta(call)
    assert "would give levels of strides [3, 7, 14]" in refused_strides(info.value)


def test_refused_strides__other_errors_and_those_never_raised():
    with pytest.raises(ConfigError, match=r"AssertionError: mine"):
        build_part(L(refuse)(error=AssertionError("mine")), "model")
    assert refused_strides(AssertionError("mine")) == ""


@pytest.mark.parametrize(
    "call",
    [
        L(TorchvisionBackbone)(model_name="regnet_x_400mf", out_strides=(8,)),
        L(SwinTransformer)(depths=[1, 1], num_heads=[1, 1], embed_dim=8, out_indices=[0, 1]),
        L(ViT)(img_size=32, depth=2, embed_dim=8, num_heads=2, drop_path_rate=0.1),
    ],
)
def test_build_on_meta__network_that_computes_in_its_constructor(call):
    assert all(parameter.is_meta for parameter in build_on_meta(call).parameters())
