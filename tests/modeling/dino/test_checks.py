import pytest
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import ConfigError
from detrex.modeling.dino.checks import (
    check_agreement,
    check_neck,
    check_transformer,
    published_channels,
)
from detrex.modeling.neck import ChannelMapper
from tests.reference.tiny_dino import TinyBackbone, tiny_transformer


def _neck(channels=8, names=("p3", "p4", "p5"), num_outs=4):
    shapes = {name: ShapeSpec(channels=channels) for name in names}
    return ChannelMapper(shapes, list(names), out_channels=32, num_outs=num_outs)


def test_check_agreement__a_part_that_says_nothing_agrees():
    check_agreement({"a": 3, "b": None, "c": 3})


def test_check_agreement__shows_both_sides():
    with pytest.raises(ConfigError, match="a is 3, b is 4; give both the same"):
        check_agreement({"a": 3, "b": 4})


def test_check_neck__counts_its_levels():
    assert check_neck(TinyBackbone(), _neck(), 32) == 4
    assert check_neck(TinyBackbone(), nn.Identity(), 32) is None


class _Silent(Backbone):
    def forward(self, x):
        return {}


@pytest.mark.parametrize("backbone", [nn.Identity(), _Silent()])
def test_check_neck__a_backbone_that_publishes_nothing_passes(backbone):
    assert published_channels(backbone) is None
    assert check_neck(backbone, _neck(channels=3), 32) == 4


@pytest.mark.parametrize("neck", [_neck(channels=16), _neck(names=("res3", "p4", "p5"))])
def test_check_neck__disagreement_shows_both_sides(neck):
    pattern = r"expects maps with the channels {.*}, but the backbone TinyBackbone gives {'p3': 8,"
    with pytest.raises(ConfigError, match=pattern):
        check_neck(TinyBackbone(), neck, 32)


def test_check_neck__width():
    with pytest.raises(ConfigError, match=r"embed_dim is 64, neck.out_channels is 32"):
        check_neck(TinyBackbone(), _neck(), 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"embed_dim": 64}, "embed_dim is 64, transformer.embed_dim is 32"),
        ({"num_queries": 9}, "num_queries is 9, transformer.two_stage_num_proposals is 11"),
        ({"num_levels": 3}, "num_feature_levels is 4, the number of the neck's levels is 3"),
    ],
)
def test_check_transformer__disagreement(given, message):
    detector = {"embed_dim": 32, "num_queries": 11, "num_levels": 4}
    check_transformer(tiny_transformer(), **detector)
    with pytest.raises(ConfigError, match=message):
        check_transformer(tiny_transformer(), **{**detector, **given})


def test_check_transformer__last_layer_only():
    transformer = tiny_transformer()
    transformer.decoder.return_intermediate = False
    with pytest.raises(ConfigError, match="return_intermediate=False; set it to True"):
        check_transformer(transformer, embed_dim=32, num_queries=11, num_levels=None)
