import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import SimpleFeaturePyramid as D2Pyramid
from detectron2.modeling import ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone import SimpleFeaturePyramid, TimmBackbone, get_vit_lr_decay_rate
from detrex.modeling.backbone.simple_feature_pyramid import get_vit_lr_decay_rate as from_module

SCALES = (4.0, 2.0, 1.0, 0.5)


def vit():
    return ViT(img_size=64, embed_dim=32, depth=1, num_heads=2, window_size=0)


def pyramid(cls=SimpleFeaturePyramid, scales=SCALES, **kwargs):
    return cls(vit(), "last_feat", 16, scales, **kwargs)


def test_simple_feature_pyramid__equals_detectron2():
    ours, theirs = pyramid(square_pad=64), pyramid(D2Pyramid)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    image = torch.randn(2, 3, 64, 64)
    expected = theirs(image)
    outputs = ours(image)
    assert list(outputs) == list(expected) == ["p2", "p3", "p4", "p5"]
    for name in outputs:
        assert_close(outputs[name], expected[name], rtol=0, atol=0)


def test_simple_feature_pyramid__publishes_its_padding():
    net = pyramid(square_pad=64)
    assert net.padding_constraints == {"size_divisibility": 32, "square_size": 64}
    assert net.size_divisibility == 32


def test_simple_feature_pyramid__adds_the_top_block():
    net = pyramid(scales=[4, 2, 1, 0.5], top_block=LastLevelMaxPool())
    outputs = net(torch.randn(1, 3, 64, 64))
    assert list(outputs) == list(net.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    assert outputs["p6"].shape == (1, 16, 1, 1)


@pytest.mark.parametrize(
    "top_block",
    [
        LastLevelMaxPool(),
        LastLevelP6P7(16, 24, in_feature="p5"),
        LastLevelP6P7(192, 24, in_feature="res4"),  # a map of the net: p6 has the stride of p5
    ],
)
def test_simple_feature_pyramid__publishes_the_levels_of_its_top_block(top_block):
    net = TimmBackbone("vit_tiny_patch16_224", depth=1, out_features=["res4"])
    backbone = SimpleFeaturePyramid(net, "res4", 16, SCALES, top_block)
    outputs = backbone(torch.randn(2, 3, 128, 256))
    assert list(outputs) == list(backbone.output_shape())
    for name, spec in backbone.output_shape().items():
        expected = (2, spec.channels, 128 // spec.stride, 256 // spec.stride)
        assert outputs[name].shape == expected, name


def test_simple_feature_pyramid__its_own_level_comes_before_a_map_of_the_same_name():
    net = TimmBackbone("test_vit", out_indices=(5,))  # timm's feature 5, of stride 16, is "p5"
    backbone = SimpleFeaturePyramid(net, "p5", 16, SCALES, LastLevelMaxPool()).eval()
    outputs = backbone(torch.randn(2, 3, 64, 128))
    assert_close(outputs["p6"], F.max_pool2d(outputs["p5"], 1, 2), rtol=0, atol=0)
    assert backbone.output_shape()["p6"] == ShapeSpec(channels=16, stride=64)


@pytest.mark.parametrize(
    ("top_block", "match"),
    [
        (LastLevelP6P7(16, 16), r"P6P7 takes the map 'res5', and there are p2,.*last level, 'p5'"),
        (LastLevelP6P7(9, 16, "p5"), r"does not take 'p5' of 16 channels .*with in_channels=16"),
    ],
)
def test_simple_feature_pyramid__explains_a_top_block_that_will_not_do(top_block, match):
    with pytest.raises(BackboneError, match=match):
        pyramid(top_block=top_block)


def test_simple_feature_pyramid__is_divisible_where_its_map_is():
    net = pyramid(scales=(4.0, 2.0))
    assert net.size_divisibility == net.padding_constraints["size_divisibility"] == 16


def test_simple_feature_pyramid__takes_a_reference_that_no_config_resolved():
    net = SimpleFeaturePyramid(vit(), "${.net.out_feature}", 16, SCALES)
    assert net.in_feature == "last_feat"
    with pytest.raises(BackboneError, match="gives the maps last_feat"):
        SimpleFeaturePyramid(vit(), "${.net.name}", 16, SCALES)


def test_simple_feature_pyramid__names_near_maps():
    with pytest.raises(BackboneError, match=r"gives the maps last_feat.*Did you mean 'last_feat'"):
        SimpleFeaturePyramid(vit(), "last_feature", 16, SCALES)


@pytest.mark.parametrize("scales", [(), (3.0,), (8, 4), 2, ["a"], None])
def test_simple_feature_pyramid__names_its_scales(scales):
    with pytest.raises(BackboneError, match="scale_factors must be some of"):
        pyramid(scales=scales)


@pytest.mark.parametrize("scales", [(0.5, 1.0), (4.0, 1.0), (2, 2)])
def test_simple_feature_pyramid__levels_double(scales):
    with pytest.raises(BackboneError, match=r"strides \[.*\] from 'last_feat' of stride 16, expec"):
        pyramid(scales=scales)


def test_simple_feature_pyramid__of_an_odd_stride():
    net = TimmBackbone("vit_small_patch14_dinov2", depth=1, out_indices=(0,))
    with pytest.raises(BackboneError, match=r"\[3.5, 7.0, 14.0, 28.0\] from 'p0' of stride 14"):
        SimpleFeaturePyramid(net, "p0", 16, SCALES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"net": torch.nn.Identity()}, r"a backbone such as EVAViT as net, got Identity\(\)"),
        ({"norm": "LNN"}, "GN, LN, got 'LNN'. Did you mean 'LN'"),
        ({"out_channels": 0}, "an integer of at least 1 as out_channels, got 0"),
        ({"square_pad": "64"}, "an integer of at least 0 as square_pad, got '64'"),
        ({"top_block": "p6"}, "such as LastLevelMaxPool, as top_block, got 'p6'"),
    ],
)
def test_simple_feature_pyramid__refuses(wrong, message):
    given = {"net": vit(), "in_feature": "last_feat", "out_channels": 16, "scale_factors": SCALES}
    with pytest.raises((BackboneError, TypeError), match=message):
        SimpleFeaturePyramid(**{**given, **wrong})


@pytest.mark.parametrize("norm", ["", "LN", None, torch.nn.BatchNorm2d])
def test_simple_feature_pyramid__norms_have_detectron2s_keys(norm):
    assert list(pyramid(norm=norm).state_dict()) == list(pyramid(D2Pyramid, norm=norm).state_dict())


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("backbone.net.pos_embed", 13),
        ("backbone.net.patch_embed.proj.weight", 13),
        ("backbone.net.blocks.3.attn.qkv.weight", 9),
        ("backbone.net.blocks.3.residual.conv1.weight", 0),
        ("backbone.simfp_2.0.weight", 0),
        ("neck.convs.0.weight", 0),
    ],
)
def test_get_vit_lr_decay_rate(name, power):
    assert get_vit_lr_decay_rate(name, 0.9, 12) == pytest.approx(0.9**power)
    assert from_module is get_vit_lr_decay_rate


def test_simple_feature_pyramid__takes_the_square_of_its_network():
    class Square(ViT):
        padding_constraints = {"square_size": 96}

    net = Square(img_size=64, embed_dim=32, depth=1, num_heads=2, window_size=0)
    assert (
        SimpleFeaturePyramid(net, "last_feat", 16, SCALES).padding_constraints["square_size"] == 96
    )
    own = SimpleFeaturePyramid(net, "last_feat", 16, SCALES, square_pad=64)
    assert own.padding_constraints["square_size"] == 64
