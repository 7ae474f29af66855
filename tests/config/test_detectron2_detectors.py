"""Where the backbone stands in each kind of detector, and what follows it there."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone, SwinTransformer
from detectron2.modeling.backbone import BasicStem as _Stem
from detectron2.modeling.backbone import ResNet as _ResNet
from torch import nn

from detrex.config import get_config, get_detectron2_config
from detrex.config.detectron2_detectors import find_backbone, put_backbone
from detrex.errors import ConfigError
from detrex.modeling.backbone import TimmBackbone, TorchvisionResNet


class _Detr(nn.Module):
    """Stands for the detectors of the original that have no neck."""

    def __init__(self, backbone, in_features, in_channels):
        super().__init__()


class _Joiner(Backbone):
    """A backbone with position embeddings, which hands its maps on."""

    def __init__(self, backbone, in_features):
        super().__init__()
        self.backbone = backbone
        self.shapes = {name: backbone.output_shape()[name] for name in in_features}

    def forward(self, images):
        return self.backbone(images)

    def output_shape(self):
        return self.shapes


class _Silent(nn.Module):
    """A wrapper that says nothing of its maps."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


class _OtherNeck(nn.Module):
    """A neck that must be told what it gets."""

    def __init__(self, input_shapes, in_features):
        super().__init__()


def _timm(**keywords):
    return L(TimmBackbone)(model_name="test_resnet", **keywords)


def _resnet50():
    stages = L(_ResNet.make_default_stages)(depth=50, norm="FrozenBN")
    return L(_ResNet)(stem=L(_Stem)(), stages=stages, out_features=["res2", "res3", "res4", "res5"])


def _put(model, backbone):
    put_backbone(model, find_backbone(model, backbone), backbone)
    return model


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mask_rcnn_fpn", "backbone.bottom_up"),
        ("mask_rcnn_c4", "backbone"),
        ("mask_rcnn_vitdet", "backbone.net"),
    ],
)
def test_find_backbone__of_detectron2(name, expected):
    model = get_detectron2_config(f"common/models/{name}.py").model
    assert find_backbone(model, _timm()) == expected


@pytest.mark.parametrize(
    ("asked", "expected"), [({}, "backbone"), ({"out_strides": (16,)}, "backbone.net")]
)
def test_find_backbone__levels_go_past_a_plain_pyramid_before_a_neck(asked, expected):
    model = get_config("dino/models/dino_vitdet_base.py").model
    assert find_backbone(model, _timm(**asked)) == expected


def test_find_backbone__by_structure():
    model = L(nn.Identity)(detector=L(nn.Identity)(encoder=_resnet50(), head=L(nn.Identity)()))
    assert find_backbone(model, _timm()) == "detector.encoder"
    model.other = _resnet50()
    with pytest.raises(ConfigError, match=r"one lazy call .* among detector.encoder, other"):
        find_backbone(model, _timm())


@pytest.mark.parametrize("old", ["built", "of another project"])
def test_put_backbone__detr(old):
    backbone = _resnet50() if old == "built" else L(nn.Identity)(depth=50)
    model = L(_Detr)(backbone=backbone, in_features=["res5"], in_channels=2048, embed_dim=256)
    _put(model, _timm())
    assert list(model.backbone.out_strides) == [32]
    assert model.in_channels == instantiate(model.backbone).output_shape()["res5"].channels
    assert (list(model.in_features), model.embed_dim) == (["res5"], 256)


def test_put_backbone__detr_with_a_dilated_last_stage():
    old = L(TorchvisionResNet)(name="resnet50", train_backbone=True, dilation=True)
    model = L(_Detr)(backbone=old, in_features=["res5"], in_channels=2048)
    _put(model, _timm())
    assert list(model.backbone.out_strides) == [16]
    assert list(model.in_features) == ["res4"]


def test_put_backbone__finer_levels_than_a_detector_takes_are_left_out():
    model = get_detectron2_config("common/models/retinanet.py").model
    _put(model, _timm(out_strides=(4, 8, 16, 32)))
    assert list(model.backbone.bottom_up.out_strides) == [8, 16, 32]
    assert list(model.head_in_features) == ["p3", "p4", "p5", "p6", "p7"]


def test_put_backbone__levels_that_are_not_there_go_from_every_head():
    model = get_detectron2_config("common/models/panoptic_fpn.py").model
    _put(model, _timm(out_strides=(8, 16, 32)))
    rpn, heads = model.proposal_generator, model.roi_heads
    assert list(rpn.in_features) == ["p3", "p4", "p5", "p6"]
    assert list(rpn.anchor_generator.strides) == [8, 16, 32, 64]
    assert [list(sizes) for sizes in rpn.anchor_generator.sizes] == [[64], [128], [256], [512]]
    assert (
        list(heads.box_pooler.scales) == list(heads.mask_pooler.scales) == [1 / 8, 1 / 16, 1 / 32]
    )
    assert list(model.sem_seg_head.input_shape) == ["p3", "p4", "p5"]


def test_put_backbone__a_neck_that_is_told():
    shapes = {"res3": ShapeSpec(channels=512), "res4": ShapeSpec(channels=1024)}
    neck = L(_OtherNeck)(input_shapes=shapes, in_features=["res3", "res4"])
    model = _put(L(nn.Identity)(backbone=_resnet50(), neck=neck), _timm())
    assert list(model.backbone.out_strides) == [8, 16]
    assert list(model.neck.in_features) == list(model.neck.input_shapes) == ["res3", "res4"]
    assert model.neck.input_shapes.res4.channels != 1024


def test_put_backbone__before_a_neck_that_sizes_itself_what_it_took_is_asked_for():
    model = get_config("dino/models/dino_r50.py").model
    _put(model, _timm())
    assert list(model.backbone.out_strides) == [8, 16, 32]


@pytest.mark.parametrize(
    ("name", "backbone", "message"),
    [
        ("mask_rcnn_fpn", L(nn.Identity)(), "Identity does not publish its maps .* which FPN"),
        ("mask_rcnn_c4", L(nn.Identity)(), "Identity does not publish its maps .* takes res4"),
        (
            "mask_rcnn_c4",
            L(SwinTransformer)(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4),
            "SwinTransformer does not say how images are to be padded",
        ),
        ("retinanet", L(TimmBackbone)(model_name="tst_resnet"), "FPN cannot get TimmBackbone"),
    ],
)
def test_put_backbone__one_that_does_not_suit(name, backbone, message):
    model = get_detectron2_config(f"common/models/{name}.py").model
    with pytest.raises(ConfigError, match=message):
        _put(model, backbone)


def test_put_backbone__a_stride_that_is_needed_and_not_given():
    class Coarse(Backbone):
        def output_shape(self):
            return {"x": ShapeSpec(channels=3, stride=64)}

        def forward(self, x):
            return {}

    model = L(nn.Identity)(
        backbone=_resnet50(), head=L(nn.Identity)(in_features=["res3", "res4"], in_feature="res4")
    )
    with pytest.raises(ConfigError, match=r"needs maps of stride .* gives x \(64\)"):
        _put(model, L(Coarse)())


def test_put_backbone__into_a_wrapper():
    joiner = L(_Joiner)(backbone=_resnet50(), in_features=["res4", "res5"])
    model = L(_Detr)(backbone=joiner, in_features=["res5"], in_channels=2048)
    assert find_backbone(model, _timm()) == "backbone.backbone"
    _put(model, L(SwinTransformer)(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4))
    assert "bottom_up" not in model.backbone
    assert list(model.backbone.in_features) == ["p2", "p3"]
    built = instantiate(model.backbone)
    assert [shape.stride for shape in built.output_shape().values()] == [16, 32]
    (name,) = model.in_features
    assert built.output_shape()[name].stride == 32
    assert model.in_channels == built.output_shape()[name].channels == 64


def test_put_backbone__into_a_wrapper_that_publishes_nothing():
    wrapper = L(_Silent)(backbone=_resnet50())
    model = L(_Detr)(backbone=wrapper, in_features=["res5"], in_channels=2048)
    _put(model, L(SwinTransformer)(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4))
    assert (list(model.in_features), model.in_channels) == (["p3"], 64)


def test_put_backbone__a_holder_by_another_name():
    model = L(_Detr)(backbone=L(nn.Identity)(body=_timm()), in_features=["res5"], in_channels=8)
    with pytest.raises(ConfigError, match="Identity holds its backbone as 'body', and what"):
        put_backbone(model, "backbone.body", _timm())
