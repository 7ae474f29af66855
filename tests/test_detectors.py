"""The backbone is found at the same place in a config and in what is built of it."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_config, get_detectron2_config
from detrex.config.building import build_on_meta
from detrex.detectors import backbone_parts, image_channels
from detrex.modeling.backbone import TimmBackbone

NOWHERE = OmegaConf.create({"backbone": "${nothing}"})
FPN = ["backbone", "backbone.bottom_up"]
PLACES = {
    "mask_rcnn_fpn": FPN,
    "panoptic_fpn": FPN,
    "retinanet": FPN,
    "fcos": FPN,
    "mask_rcnn_c4": ["backbone"],
    "mask_rcnn_vitdet": ["backbone", "backbone.net"],
}


@pytest.mark.parametrize("name", PLACES)
def test_backbone_parts__config_and_detector_agree(name):
    model = get_detectron2_config(f"common/models/{name}.py").model
    if name == "mask_rcnn_vitdet":
        model.backbone.net.depth = 1
    parts = backbone_parts(model)
    assert list(parts) == PLACES[name]
    detector = build_on_meta(model)
    assert backbone_parts(detector) == {path: detector.get_submodule(path) for path in parts}


def test_backbone_parts__a_wrapper_is_the_network():
    model = get_config("dino/models/dino_r50.py").model
    model.backbone = L(TimmBackbone)(model_name="test_vit", out_strides=(8, 16, 32))
    assert list(backbone_parts(model)) == ["backbone"]
    detector = nn.Module()
    detector.backbone = instantiate(model.backbone)
    assert list(backbone_parts(detector)) == ["backbone"]


@pytest.mark.parametrize("detector", [5, None, "text", nn.Linear(1, 1), NOWHERE])
def test_backbone_parts__nothing_to_find(detector):
    assert backbone_parts(detector) == {}


@pytest.mark.parametrize(("mean", "channels"), [(torch.zeros(4, 1, 1), 4), (None, None)])
def test_image_channels__are_those_of_the_statistics(mean, channels):
    detector = nn.Identity()
    detector.register_buffer("pixel_mean", mean)
    assert image_channels(detector) == channels
