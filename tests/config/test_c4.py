"""The stage on regions is the new backbone's own, or a new one with a word in the log."""

import logging

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.backbone import ResNet as _ResNet

from detrex.config import get_detectron2_config, swap_backbone
from detrex.modeling.backbone import RoiStage, TimmBackbone


def _model():
    return get_detectron2_config("common/models/mask_rcnn_c4.py").model


def _timm(name="test_resnet", **keywords):
    return L(TimmBackbone)(model_name=name, **keywords)


@pytest.mark.parametrize(
    "asked", [{"out_features": ["res4"]}, {"out_indices": (3, 4)}, {"out_strides": (8, 16)}]
)
def test_fit_region_stage__is_the_networks_own(asked):
    model = swap_backbone(_model(), _timm(drop_path_rate=0.1, **asked))
    model.backbone.drop_path_rate = 0.3  # both parts are told
    heads = instantiate(model.roi_heads)
    assert isinstance(heads.res5, RoiStage)
    assert any(k.startswith("backbone.timm_model.layer4") for k in heads.res5.state_dict())
    assert model.roi_heads.res5.backbone.drop_path_rate == 0.3
    assert heads.box_predictor.cls_score.in_features == heads.res5.out_channels
    assert heads.mask_head.deconv.in_channels == heads.res5.out_channels
    backbone = instantiate(model.backbone)
    (name,) = backbone.output_shape()
    assert list(model.proposal_generator.in_features) == list(model.roi_heads.in_features) == [name]
    assert model.proposal_generator.head.in_channels == backbone.output_shape()[name].channels
    assert not any("layer4" in key for key in backbone.state_dict())


def test_fit_region_stage__numbers_that_are_written_out():
    model = _model()
    model.roi_heads.box_predictor.input_shape.channels = 2048
    model.roi_heads.mask_head.input_shape.channels = 7
    swap_backbone(model, _timm())
    assert model.roi_heads.box_predictor.input_shape.channels == model.roi_heads.res5.out_channels
    assert model.roi_heads.mask_head.input_shape.channels == 7


def test_fit_region_stage__a_network_of_one_size_sets_the_size_of_regions():
    model = _model()
    model.roi_heads.pooler.output_size = 7
    swap_backbone(model, _timm("levit_128s"))
    assert model.roi_heads.pooler.output_size == 14


def test_fit_region_stage__without_one_it_starts_anew_and_says_so(caplog):
    model = _model()
    with caplog.at_level(logging.WARNING):
        swap_backbone(model, _timm("test_vit"))
    assert "res5 starts from random weights, for TimmBackbone has no stage" in caplog.text
    stage = instantiate(model.roi_heads.res5)
    channels = instantiate(model.backbone).output_shape()["res4"].channels
    assert torch.nn.Sequential(*stage)(torch.zeros(1, channels, 14, 14)).shape == (1, 2048, 7, 7)
    swap_backbone(model, _timm())  # and back
    assert isinstance(instantiate(model.roi_heads.res5), RoiStage)


def test_fit_region_stage__resnets_of_one_last_stage_keep_it():
    model, expected = _model(), _model().roi_heads.res5
    stages = L(_ResNet.make_default_stages)(depth=101, norm="FrozenBN")
    swap_backbone(model, L(_ResNet)(stem=L(BasicStem)(), stages=stages, out_features=["res4"]))
    assert model.roi_heads.res5 == expected


def test_fit_region_stage__regions_whose_sides_are_a_pair():
    model = _model()
    model.roi_heads.pooler.output_size = (7, 14)
    swap_backbone(model, _timm())
    heads = instantiate(model.roi_heads)
    assert isinstance(heads.res5, RoiStage)
    assert tuple(heads.pooler.output_size) == (14, 14)
