import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf

from detrex.config import get_config, swap_backbone
from detrex.errors import ConfigError
from detrex.inference.portable import (
    evaluation_augmentation,
    image_format,
    make_portable,
    refuse_secrets,
    sides_of,
)
from detrex.modeling.backbone import HuggingFaceBackbone, TimmBackbone
from tests.reference.detections import assert_same_detections
from tests.reference.tiny_transformers import RESNET, built_by_transformers


def _config(model_name, **keywords):
    cfg = get_config("dino/demo_shapes.py")
    cfg.model.device = "cpu"
    cfg.model = swap_backbone(cfg.model, L(TimmBackbone)(model_name=model_name, **keywords))
    return cfg


def test_make_portable__nothing_is_left_to_be_fetched():
    cfg = _config("resnet18", weights="a1_in1k", out_features=["res3", "res4"])
    make_portable(cfg)
    assert not cfg.model.backbone.weights


def test_make_portable__a_folder_of_transformers_is_not_needed(tmp_path):
    built_by_transformers("resnet", RESNET).save_pretrained(tmp_path)
    said = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    backbone = L(HuggingFaceBackbone)(model_name=str(tmp_path), weights=True, out_strides=(8, 16))
    cfg = get_config("dino/demo_shapes.py")
    cfg.model = swap_backbone(cfg.model, backbone)
    cfg.model.update(device="cpu", pixel_mean="auto", pixel_std="auto")
    before = instantiate(cfg.model)
    make_portable(cfg)
    assert list(cfg.model.pixel_std) == pytest.approx([63.75] * 3)
    tmp_path.rename(tmp_path.with_name("gone"))
    after = instantiate(cfg.model)
    after.load_state_dict(before.state_dict())
    assert str(tmp_path) not in OmegaConf.to_yaml(cfg.model.backbone.model_name)


def test_make_portable__a_folder_cannot_put_calls_into_a_config(tmp_path):
    hostile = {"model_type": "vit", "id": {"_target_": "os.system", "command": "true"}}
    (tmp_path / "config.json").write_text(json.dumps(hostile))
    cfg = get_config("dino/demo_shapes.py")
    cfg.model.update(pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)
    cfg.model.backbone = L(HuggingFaceBackbone)(model_name=str(tmp_path))
    make_portable(cfg)
    assert cfg.model.backbone.model_name == str(tmp_path)


def test_make_portable__statistics_are_those_of_the_weights_that_are_left_out():
    cfg = _config("tf_efficientnet_b0", weights="ap_in1k", out_features=["res3", "res4"])
    cfg.model.update(pixel_mean="auto", pixel_std="auto", input_format="BGR")
    cfg.dataloader.test.mapper.img_format = "BGR"
    make_portable(cfg)
    assert list(cfg.model.pixel_mean) == pytest.approx([127.5] * 3)
    assert list(cfg.model.pixel_std) == pytest.approx([127.5] * 3)
    assert image_format(cfg) == cfg.dataloader.test.mapper.img_format == "RGB"


def test_make_portable__a_detector_gives_what_it_gave_with_auto():
    cfg = get_config("dino/demo_shapes.py")
    cfg.model.update(device="cpu", pixel_mean="auto", pixel_std=[1.0, 2.0, 4.0], input_format="BGR")
    cfg.model.backbone = L(TimmBackbone)(model_name="resnet18", out_features=["res3", "res4"])
    cfg.model.neck.input_shapes = {"res3": ShapeSpec(channels=128), "res4": ShapeSpec(channels=256)}
    torch.manual_seed(0)
    before = instantiate(cfg.model).eval()
    make_portable(cfg)
    after = instantiate(cfg.model).eval()
    after.load_state_dict(before.state_dict())
    image = torch.rand(3, 40, 56) * 255  # as BGR, the order that the config was in
    with torch.no_grad():
        expected = before([{"image": image, "height": 40, "width": 56}])[0]["instances"]
        actual = after([{"image": image.flip(0), "height": 40, "width": 56}])[0]["instances"]
    assert_same_detections(actual, expected)
    assert list(cfg.model.pixel_std) == [4.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("model", "mapper", "expected"),
    [
        ({"input_format": "BGR"}, {"img_format": "RGB"}, "BGR"),
        ({}, {"img_format": "BGR"}, "BGR"),
        ({"input_format": None}, {"image_format": "BGR"}, "BGR"),
        ({}, {"image_format": "RGB"}, "RGB"),
        ({}, {"img_format": "L"}, "L"),
        ({}, None, "RGB"),
    ],
)
def test_image_format__is_the_configs(model, mapper, expected, caplog):
    cfg = OmegaConf.create({"model": model, "dataloader": {"test": {"mapper": mapper}}})
    assert image_format(cfg) == expected
    several = "model.input_format=BGR, dataloader.test.mapper.img_format=RGB" in caplog.text
    assert several == (mapper == {"img_format": "RGB"})


@pytest.mark.parametrize("text", ["https://me:secret@host/a", "https://host/a?sig=secret"])
def test_refuse_secrets__in_addresses_however_deep(text):
    refuse_secrets({"a": [1, None, "https://host/a", "me@host"]}, "model")
    with pytest.raises(ConfigError, match=r"^model\.a\.1=https://host/a") as error:
        refuse_secrets({"a": [1, text]}, "model")
    assert "secret@" not in str(error.value)
    assert "sig" not in str(error.value)


@pytest.mark.parametrize("order", ["YUV-BT.601", "bgr", 7])
def test_image_format__another_is_not_taken_for_rgb(order):
    cfg = OmegaConf.create({"model": {}, "dataloader": {"test": {"mapper": {"img_format": order}}}})
    with pytest.raises(ConfigError, match=r"mapper\.img_format=.* expected RGB, BGR or L"):
        image_format(cfg)


@pytest.mark.parametrize(
    ("mapper", "kinds", "sides"),
    [
        (None, [T.ResizeShortestEdge], (800, 1333)),
        ({"augmentation": []}, [], (0, 0)),
        (
            {"augmentations": [L(T.ResizeShortestEdge)(short_edge_length=[90, 60], max_size=99)]},
            [T.ResizeShortestEdge],
            (90, 99),
        ),
        ({"augmentation": [L(T.Resize)(shape=(30, 40))]}, [T.Resize], (0, 0)),
    ],
)
def test_evaluation_augmentation__is_the_test_mappers(mapper, kinds, sides):
    content = {"dataloader": {"test": {"mapper": mapper}}}
    cfg = OmegaConf.create(content, flags={"allow_objects": True})
    augmentation = evaluation_augmentation(cfg)
    assert [type(each) for each in augmentation] == kinds
    assert sides_of(augmentation) == sides
