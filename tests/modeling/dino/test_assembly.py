"""What a detector takes from its backbone, and what it says where the two do not fit."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import ConfigError
from detrex.layers import PositionEmbeddingSine
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.dino.assembly import (
    check_parts,
    connect_neck,
    published_shapes,
    size_position_embedding,
    weigh_losses,
)
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.neck import ChannelMapper
from tests.reference.tiny_dino import TinyBackbone, tiny_transformer


def _neck(channels=8, names=("p3", "p4", "p5"), num_outs=4):
    shapes = {name: ShapeSpec(channels=channels) for name in names}
    return ChannelMapper(shapes, list(names), out_channels=32, num_outs=num_outs)


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"embed_dim": 64},
            "embed_dim is 64, transformer.embed_dim is 32, neck.out",
        ),
        ({"position_embedding": 8}, r"2 \* position_embedding.num_pos_feats is 16"),
        ({"num_queries": 9}, "num_queries is 9, transformer.two_stage_num_proposals is 11"),
        ({"num_classes": 9}, "num_classes is 9, criterion.num_classes is 5"),
        ({"num_outs": 3}, "num_feature_levels is 4, the number of the neck's levels is 3"),
        ({"return_intermediate": False}, "return_intermediate=False; set it to True"),
    ],
)
def test_check_parts__disagreement(given, message):
    detector = {"embed_dim": 32, "num_queries": 11, "num_classes": 5}
    transformer, criterion = tiny_transformer(), nn.Identity()
    criterion.num_classes = 5
    options = {"position_embedding": 16, "num_outs": 4, "return_intermediate": True, **given}
    transformer.decoder.return_intermediate = options["return_intermediate"]
    position_embedding = PositionEmbeddingSine(options["position_embedding"])
    neck = _neck(num_outs=options["num_outs"])
    detector.update((name, given[name]) for name in detector.keys() & given.keys())
    with pytest.raises(ConfigError, match=message):
        check_parts(position_embedding, neck, transformer, criterion, **detector)
