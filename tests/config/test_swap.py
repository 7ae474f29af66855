"""Swapping a backbone takes out what belonged to the old one, and nothing else."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_config, get_detectron2_config, load_config, swap_backbone
from detrex.config.lint import check_targets
from detrex.config.swap import swap_changes
from detrex.errors import ConfigError
from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.neck import ChannelMapper


def _detector(backbone, neck=None, pixel_mean=(1.0, 2.0, 3.0)):
    """Another make of detector, which knows nothing of "auto"."""
    return nn.ModuleList([backbone, neck])


def _backbone():
    return L(nn.Conv2d)(in_channels=3, out_channels=7, kernel_size=1)


def _by_hand():
    model = get_config("dino/models/dino_r50.py").model
    model.neck.input_shapes = {"res3": ShapeSpec(channels=512), "res4": ShapeSpec(channels=1024)}
    model.neck.in_features = ["res3", "res4"]
    model.pixel_mean, model.pixel_std = [103.53, 116.28, 123.675], [1.0, 1.0, 1.0]
    return model


def test_swap_backbone__leaves_the_rest_alone():
    model, expected = _by_hand(), get_config("dino/models/dino_r50.py").model
    expected.backbone = _backbone()
    assert swap_backbone(model, _backbone()) is model
    assert LazyConfig.to_py(model) == LazyConfig.to_py(expected)
    assert (model.pixel_mean, model.pixel_std) == ("auto", "auto")
    assert check_targets(OmegaConf.create({"model": model}, flags={"allow_objects": True})) == []


def test_swap_backbone__works_on_what_yaml_gives_back(tmp_path):
    path = tmp_path / "saved.yaml"
    LazyConfig.save(OmegaConf.create({"model": _by_hand()}, flags={"allow_objects": True}), path)
    model = swap_backbone(load_config(path).model, _backbone())
    assert "input_shapes" not in model.neck
    assert model.pixel_std == "auto"


def test_swap_backbone__another_detector_without_neck():
    model = L(_detector)(backbone=L(nn.Identity)(), pixel_mean=[4.0, 5.0, 6.0])
    swap_backbone(model, _backbone())
    assert model.backbone.out_channels == 7
    assert model.pixel_mean == [4.0, 5.0, 6.0]
    assert "neck" not in model


def test_swap_backbone__neck_with_nothing_by_hand():
    model = L(_detector)(backbone=L(nn.Identity)(), neck=L(ChannelMapper)(num_outs=4))
    assert swap_backbone(model, _backbone()).neck.num_outs == 4


@pytest.mark.parametrize(
    ("model", "backbone", "message"),
    [
        (L(_detector)(), _backbone(), r"with a 'backbone', but _detector has "),
        ({"model": L(_detector)()}, _backbone(), r"one: pass cfg\.model\."),
        (nn.Identity(), _backbone(), "a lazy call as its model, such as get_config.*got Identity"),
        (L(_detector)(backbone=1), nn.Identity(), "a lazy call as its backbone, .*got Identity"),
        (L(_detector)(backbone=1), {"depth": 50}, "a lazy call as its backbone, .*got dict"),
    ],
)
def test_swap_backbone__not_such_a_config(model, backbone, message):
    with pytest.raises(ConfigError, match=message):
        swap_backbone(model, backbone)


def test_swap_backbone__neck_that_needs_its_sizes_leaves_the_model_as_it_was():
    neck = L(FPN)(bottom_up=L(nn.Identity)(), in_features=["res3"], out_channels=8)
    model = L(_detector)(backbone=L(nn.Identity)(), neck=neck)
    with pytest.raises(ConfigError, match="the neck FPN cannot be built without 'in_features'"):
        swap_backbone(model, _backbone())
    assert model.backbone == L(nn.Identity)()


def _mask_rcnn():
    return get_detectron2_config("common/models/mask_rcnn_fpn.py").model


def _timm(**keywords):
    return L(TimmBackbone)(model_name="test_convnext", **keywords)


def test_swap_backbone__statistics_of_detectors_that_take_numbers():
    model = swap_backbone(_mask_rcnn(), _timm())
    wanted = instantiate(model.backbone.bottom_up).preprocess
    assert tuple(model.pixel_mean) == wanted.pixel_mean != (103.53, 116.28, 123.675)
    assert tuple(model.pixel_std) == wanted.pixel_std
    assert model.input_format == "RGB"
    four = swap_backbone(_mask_rcnn(), _timm(in_channels=4))
    assert (len(four.pixel_mean), len(four.pixel_std), four.input_format) == (4, 4, "BGR")


def test_swap_backbone__what_does_not_depend_on_it_stays():
    model, expected = _mask_rcnn(), _mask_rcnn()
    swap_backbone(model, _timm())
    for key in ("proposal_generator", "roi_heads"):
        assert model[key] == expected[key]
    assert model.backbone.top_block == expected.backbone.top_block


def test_swap_backbone__same_again_changes_nothing():
    model = swap_backbone(_mask_rcnn(), _timm(out_strides=(8, 16, 32)))
    assert swap_changes(model, _timm(out_strides=(8, 16, 32))) == []


def test_swap_changes__lists_what_swap_backbone_does(caplog):
    model, before = _mask_rcnn(), _mask_rcnn()
    changes = swap_changes(model, _timm(out_strides=(8, 16, 32)))
    assert LazyConfig.to_py(model) == LazyConfig.to_py(before)
    assert (
        "backbone.in_features: '${.bottom_up.out_features}' -> ['res3', 'res4', 'res5']" in changes
    )
    assert "input_format: 'BGR' -> 'RGB'" in changes
    (line,) = (change for change in changes if change.startswith("backbone.bottom_up: "))
    assert line.endswith("-> TimmBackbone(model_name='test_convnext', out_strides=[8, 16, 32])")
    with caplog.at_level("INFO", "detrex"):
        swap_backbone(model, _timm(out_strides=(8, 16, 32)))
    assert all(change in caplog.text for change in changes)
    assert "takes images in RGB now: set image_format of the mappers" in caplog.text


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "mask_rcnn_c4", "mask_rcnn_vitdet"])
def test_swap_backbone__what_fails_changes_nothing(name):
    model = get_detectron2_config(f"common/models/{name}.py").model
    before, backbone = OmegaConf.to_container(model), _timm(out_strides=(3,))
    with pytest.raises(ConfigError, match=r"cannot be built: .* got out_strides"):
        swap_backbone(model, backbone)
    assert OmegaConf.to_container(model) == before
    assert list(backbone.out_strides) == [3]


@pytest.mark.parametrize("name", ["fcos", "mask_rcnn_c4"])
def test_swap_backbone__of_a_whole_config_that_is_saved(name, tmp_path):
    cfg = OmegaConf.create({"model": get_detectron2_config(f"common/models/{name}.py").model})
    swap_backbone(cfg.model, _timm(weights="mine.pth"))
    assert check_targets(cfg) == []
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    saved = load_config(tmp_path / "saved.yaml")
    assert check_targets(saved) == []
    if name == "mask_rcnn_c4":
        assert saved.model.roi_heads.res5.backbone.weights == "mine.pth"


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "mask_rcnn_c4"])
def test_swap_backbone__references_are_read_from_where_the_backbone_will_stand(name):
    model = get_detectron2_config(f"common/models/{name}.py").model
    cfg = OmegaConf.create({"model": model, "train": {"name": "test_convnext"}})
    backbone = L(TimmBackbone)(model_name="${train.name}")
    if name == "mask_rcnn_fpn":
        cfg.model.backbone.in_features = ["res3", "res4", "res5"]
        backbone.out_features = "${..in_features}"
    swap_backbone(cfg.model, backbone)
    assert check_targets(cfg) == []
    if name == "mask_rcnn_c4":
        assert cfg.model.roi_heads.res5.backbone.model_name == "test_convnext"
        instantiate(cfg.model.roi_heads)
        return
    put = cfg.model.backbone.bottom_up
    assert OmegaConf.is_interpolation(put, "model_name")
    assert OmegaConf.is_interpolation(put, "out_features")
    levels = instantiate(cfg.model.backbone).bottom_up.output_shape()
    assert list(levels) == list(cfg.model.backbone.in_features) == ["res3", "res4", "res5"]


def test_swap_backbone__references_in_a_circle_are_broken():
    model = _mask_rcnn()  # whose in_features refer to the backbone's out_features
    swap_backbone(model, _timm(out_features="${..in_features}"))
    assert list(model.backbone.bottom_up.out_features) == ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize("name", ["fcos", "dino"])
@pytest.mark.parametrize("key", ["model_name", "out_strides"])
def test_swap_backbone__reference_to_nothing(name, key):
    if name == "dino":
        model = get_config("dino/models/dino_r50.py").model
    else:
        model = get_detectron2_config("common/models/fcos.py").model
    before = OmegaConf.to_container(model)
    backbone = L(TimmBackbone)(**{"model_name": "test_convnext", key: "${nowhere.to_be_found}"})
    with pytest.raises(ConfigError, match=r"new backbone .*nowhere") as caught:
        swap_backbone(model, backbone)
    assert "\n" not in str(caught.value)
    assert OmegaConf.to_container(model) == before
