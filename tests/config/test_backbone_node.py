"""What a backbone's call says and gives, without weights."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from torch import nn
from torchvision.models import ResNet18_Weights

from detrex.config import get_config, get_detectron2_config
from detrex.config.backbone_node import (
    build_for,
    build_without_weights,
    expected_images,
    names_by_stride,
    published_shapes,
    says_its_maps,
    stride_of_name,
    without_weights,
)
from detrex.errors import ConfigError
from detrex.modeling.backbone import (
    BasicStem,
    ConvNeXt,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    TorchvisionResNet,
)


def _resnet(**keywords):
    stages = L(ResNet.make_default_stages)(depth=18, norm="BN")
    return L(ResNet)(stem=L(BasicStem)(), stages=stages, **keywords)


def test_without_weights__fetches_nothing_and_says_so():
    model = get_config("dino/demo_shapes.py").model
    model.backbone = L(TimmBackbone)(model_name="test_resnet", pretrained=True, out_strides=(8, 16))
    copied, notes = without_weights(model, "model")
    assert not copied.backbone.pretrained
    assert model.backbone.pretrained
    assert notes == ["model.backbone.pretrained=True is left out: nothing is fetched"]


def _fetched(**keywords):
    raise AssertionError("nothing is to be fetched")


def test_without_weights__a_call_that_fetches_is_not_made():
    model = get_detectron2_config("common/models/fcos.py").model
    model.backbone.bottom_up = L(TimmBackbone)(model_name="test_resnet", weights=L(_fetched)())
    copied, notes = without_weights(model, "model")
    assert copied.backbone.bottom_up.weights is None
    assert notes == ["model.backbone.bottom_up.weights=L(_fetched) is left out: nothing is fetched"]


def test_without_weights__numbers_are_no_weights():
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up = L(TorchvisionBackbone)(model_name="resnet18", weights="DEFAULT")
    model.backbone.top_block.weights = [1, 2]
    copied, notes = without_weights(model, "model")
    assert copied.backbone.bottom_up.weights is None
    assert copied.backbone.top_block.weights == [1, 2]
    assert copied.roi_heads.box_predictor.box2box_transform.weights == [10, 10, 5, 5]
    assert len(notes) == 1


@pytest.mark.parametrize("key", ["weights", "weights_backbone", "checkpoint_path"])
@pytest.mark.parametrize("value", ["a.pth", Path("a.pth"), ResNet18_Weights.DEFAULT])
def test_without_weights__however_named(key, value):
    call = L(nn.Sequential)(inner=L(_fetched)(**{key: value}))
    for path in ("model", "model.backbone"):
        copied, notes = without_weights(call, path)
        assert not copied.inner[key]
        assert [note.partition("=")[0] for note in notes] == [f"{path}.inner.{key}"]


def test_build_without_weights__number_for_weights_is_still_refused():
    with pytest.raises(TypeError, match=r"weights must be .* got 3 of type int"):
        build_without_weights(L(TimmBackbone)(model_name="test_resnet", weights=3))


@pytest.mark.parametrize("key", ["pretrained", "pretrained_backbone"])
def test_without_weights__a_flag_of_a_backbone_may_be_a_number(key):
    copied, _ = without_weights(L(_fetched)(**{key: 1}), "model.backbone")
    assert copied[key] is False


def test_without_weights__leaves_references_as_they_are():
    cfg = OmegaConf.create({"width": 7, "call": L(nn.Linear)(out_features="${width}")})
    assert without_weights(cfg.call, "model.backbone")[0].out_features == 7
    broken = OmegaConf.create({"_target_": "torch.nn.Linear", "weights": "${absent}"})
    assert without_weights(broken, "model.backbone") == (broken, [])


def test_build_without_weights__fetches_nothing_and_draws_nothing(caplog):
    state = torch.random.get_rng_state()
    call = L(TimmBackbone)(model_name="test_resnet", out_strides=(8,), weights="absent.pth")
    with caplog.at_level(logging.INFO, "detrex"):
        built = build_without_weights(call, "cpu")
    assert not caplog.records
    assert not any(p.is_meta for p in built.parameters())
    assert all(p.is_meta for p in build_without_weights(call).parameters())
    assert call.weights == "absent.pth"
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("call", "key", "expected"),
    [
        (L(TimmBackbone)(model_name="test_resnet"), "out_strides", [8, 16]),
        (L(TimmBackbone)(model_name="test_resnet", out_strides=(4, 8, 16)), "out_strides", [8, 16]),
        (
            L(TimmBackbone)(model_name="test_resnet", out_features=["res3", "res4", "res5"]),
            "out_features",
            ["res3", "res4"],
        ),
        (L(TimmBackbone)(model_name="test_resnet", out_indices=(3, 2, 1)), "out_indices", [3, 2]),
        (_resnet(), "out_features", ["res3", "res4"]),
        (L(ConvNeXt)(depths=[1] * 4, dims=[4, 8, 12, 16]), "out_indices", [1, 2]),
        (
            L(TorchvisionResNet)(name="resnet18", train_backbone=True),
            "out_features",
            ["res3", "res4"],
        ),
    ],
)
def test_build_for__asks_for_what_is_taken(call, key, expected):
    built, shapes = build_for(call, [8, 16], "FPN")
    assert list(call[key]) == expected
    assert [shape.stride for shape in shapes.values()] == [8, 16]
    assert {shape.stride for shape in built.output_shape().values()} == {8, 16}


def test_build_for__leaves_what_gives_none_of_it():
    call = L(TimmBackbone)(model_name="test_resnet", out_strides=(32,))
    _, shapes = build_for(call, [8, 16], "FPN")
    assert list(shapes) == ["res5"]
    assert list(call.out_strides) == [32]


def test_build_for__a_backbone_that_cannot_be_built():
    call = L(TimmBackbone)(model_name="resnet81")
    with pytest.raises(ConfigError, match=r"FPN cannot get TimmBackbone .* no model named"):
        build_for(call, [8], "FPN")


def test_published_shapes__finest_first_or_none():
    class Backward(nn.Module):
        def output_shape(self):
            return {"b": ShapeSpec(channels=3, stride=8), "a": ShapeSpec(channels=2, stride=4)}

    assert list(published_shapes(Backward())) == ["a", "b"]
    assert names_by_stride(published_shapes(Backward())) == {4: "a", 8: "b"}
    assert published_shapes(nn.Identity()) is None


def test_says_its_maps__by_any_keyword():
    assert not says_its_maps(L(TimmBackbone)(model_name="resnet18"))
    assert says_its_maps(L(TimmBackbone)(model_name="resnet18", out_indices=(1,)))
    assert says_its_maps(L(nn.Conv2d)(in_channels=3, out_channels=4, kernel_size=1))


def test_stride_of_name__of_detectron2():
    assert [stride_of_name(name) for name in ("res2", "p6", "stem", "s1")] == [4, 64, None, None]


def test_expected_images__by_a_tag_or_by_a_file(tmp_path):
    name = "vit_tiny_patch16_224"
    plain = L(TimmBackbone)(model_name=name, out_strides=(16,), depth=1)
    by_tag = L(TimmBackbone)(model_name="mobilenetv3_large_100", weights="miil_in21k_ft_in1k")
    assert expected_images(plain).pixel_mean == (127.5, 127.5, 127.5)
    assert expected_images(by_tag).pixel_mean == (0.0, 0.0, 0.0)
    plain.weights = str(tmp_path / "absent.pth")
    assert expected_images(plain).pixel_mean == (127.5, 127.5, 127.5)
    assert expected_images(L(nn.Identity)()) is None


@pytest.mark.parametrize(
    ("name", "weights", "keywords"),
    [
        ("googlenet", True, {"transform_input": True}),
        ("googlenet", None, {}),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", {"image_size": 384}),
        ("resnet18", "DEFAULT", {}),
        ("googlenet", "no such weights", {}),
    ],
)
def test_without_weights__describes_the_network_of_the_weights(name, weights, keywords):
    call = L(TorchvisionBackbone)(model_name=name, weights=weights, out_strides=(16,))
    copied, _ = without_weights(call, "model.backbone")
    before = {"model_name", "weights", "out_strides", "_target_"}
    assert {key: value for key, value in copied.items() if key not in before} == keywords
    assert copied.weights is None


def test_without_weights__what_the_user_says_of_the_network_stays():
    call = L(TorchvisionBackbone)(model_name="googlenet", pretrained=True, transform_input=False)
    assert without_weights(call, "model.backbone")[0].transform_input is False
