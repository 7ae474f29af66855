"""The images of a detector follow its backbone's weights, before and after it is built."""

import pytest
import timm
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_config, get_detectron2_config
from detrex.config.pixel_statistics import (
    pixel_statistics_warnings,
    resolve_pixel_statistics,
    takes_auto,
)
from detrex.detectors import published_statistics
from detrex.errors import ConfigError, DetrexError
from detrex.modeling.backbone import SimpleFeaturePyramid, TimmBackbone

HALF = [127.5, 127.5, 127.5]  # of the weights of timm's "test_resnet"
LEVELS = ["res2", "res3", "res4", "res5"]


def backbone(**kwargs):
    return L(TimmBackbone)(**{"model_name": "test_resnet", "out_features": LEVELS, **kwargs})


def detector(name="mask_rcnn_fpn", **kwargs):
    model = get_detectron2_config(f"common/models/{name}.py").model
    if name == "mask_rcnn_c4":
        model.backbone = backbone(out_features=["res4"], **kwargs)
    elif name == "mask_rcnn_vitdet":
        model.backbone._target_ = SimpleFeaturePyramid
        model.backbone.net = backbone(model_name="test_vit", out_features=["res4"], **kwargs)
        model.backbone.in_feature = "res4"
    else:
        model.backbone.bottom_up = backbone(**kwargs)
    return model


def run_config(model, image_format="BGR"):
    data = {
        "train": {
            "mapper": L(DatasetMapper)(is_train=True, augmentations=[], image_format=image_format)
        },
        "test": {
            "mapper": L(DatasetMapper)(
                is_train=False, augmentations=[], image_format="${...train.mapper.image_format}"
            )
        },
    }
    return OmegaConf.create({"model": model, "dataloader": data}, flags={"allow_objects": True})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a whole network of timm's, which says nothing of its images."""
    file = tmp_path_factory.mktemp("weights") / "test_resnet.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    return str(file)


@pytest.mark.parametrize(
    "name", ["mask_rcnn_fpn", "panoptic_fpn", "retinanet", "fcos", "mask_rcnn_c4"]
)
def test_resolve_pixel_statistics__writes_numbers_and_the_order(name):
    cfg = run_config(detector(name))
    cfg.model.pixel_mean = cfg.model.pixel_std = "auto"
    changes = resolve_pixel_statistics(cfg)
    assert cfg.model.pixel_mean == cfg.model.pixel_std == HALF
    assert cfg.dataloader.train.mapper.image_format == "RGB"
    assert cfg.dataloader.test.mapper.image_format == "RGB"
    assert cfg.model.get("input_format", "RGB") == "RGB"
    assert "dataloader.train.mapper.image_format: BGR -> RGB" in changes
    assert len(changes) == (3 if name == "fcos" else 4)
    assert pixel_statistics_warnings(cfg) == resolve_pixel_statistics(cfg) == []


def test_resolve_pixel_statistics__lets_the_model_be_built():
    model = detector("fcos", out_features=LEVELS[1:])
    model.pixel_mean, model.pixel_std = "auto", [1.0, 2.0, 3.0]
    resolve_pixel_statistics(model)  # the model alone
    built = instantiate(model)
    own = published_statistics(built.backbone)
    assert built.pixel_mean.flatten().tolist() == pytest.approx(own.pixel_mean)
    assert built.pixel_std.flatten().tolist() == [1, 2, 3]
    assert built.pixel_mean.flatten().tolist() == HALF


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "mask_rcnn_vitdet"])
def test_resolve_pixel_statistics__takes_what_the_weights_say(name):
    tag = {"model_name": "vit_base_patch16_clip_224", "weights": "openai", "depth": 1}
    model = detector(name)
    inner = model.backbone.net if name == "mask_rcnn_vitdet" else model.backbone.bottom_up
    inner.update(tag)
    model.pixel_mean = model.pixel_std = "auto"
    resolve_pixel_statistics(model)
    cfg = timm.get_pretrained_cfg("vit_base_patch16_clip_224.openai")
    assert model.pixel_mean == pytest.approx([255 * value for value in cfg.mean], abs=1e-4)
    assert model.pixel_std == pytest.approx([255 * value for value in cfg.std], abs=1e-4)


def test_resolve_pixel_statistics__numbers_by_hand_follow_the_channels():
    cfg = run_config(detector("fcos"))
    cfg.model.pixel_mean, cfg.model.pixel_std = "auto", [1.0, 2.0, 3.0]
    assert "model.pixel_std: [1.0, 2.0, 3.0] -> [3.0, 2.0, 1.0]" in resolve_pixel_statistics(cfg)
    assert cfg.model.pixel_std == [3, 2, 1]
    same = run_config(detector("fcos"), image_format="RGB")
    same.model.pixel_mean, same.model.pixel_std = "auto", [1.0, 2.0, 3.0]
    resolve_pixel_statistics(same)
    assert same.model.pixel_std == [1, 2, 3]


def test_resolve_pixel_statistics__of_more_channels_leaves_the_order():
    cfg = run_config(detector(in_channels=4))
    cfg.model.pixel_mean = cfg.model.pixel_std = "auto"
    resolve_pixel_statistics(cfg)
    assert len(cfg.model.pixel_mean) == 4
    assert cfg.dataloader.train.mapper.image_format == cfg.model.input_format == "BGR"


def test_resolve_pixel_statistics__leaves_numbers_and_detectors_that_ask_themselves():
    cfg = run_config(detector())
    before = OmegaConf.to_yaml(cfg.model.pixel_mean), cfg.model.input_format
    assert resolve_pixel_statistics(cfg) == []
    assert (OmegaConf.to_yaml(cfg.model.pixel_mean), cfg.model.input_format) == before
    dino = get_config("dino/models/dino_r50.py").model
    dino.pixel_mean = dino.pixel_std = "auto"
    assert takes_auto(dino)
    assert resolve_pixel_statistics(dino) == []
    assert dino.pixel_mean == "auto"


def test_resolve_pixel_statistics__explains_what_it_cannot_know():
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    model.pixel_mean = "auto"
    with pytest.raises(ConfigError, match=r'pixel_mean is "auto", and its backbone ResNet does no'):
        resolve_pixel_statistics(model)
    model.pixel_mean = "rgb"
    with pytest.raises(ConfigError, match=r'pixel_mean must be "auto" or one value .*got \'rgb\''):
        resolve_pixel_statistics(model)


def test_resolve_pixel_statistics__names_the_backbone_that_cannot_be_built():
    model = detector(model_name="test_resnot")
    model.pixel_std = "auto"
    with pytest.raises(DetrexError, match="test_resnet"):
        resolve_pixel_statistics(model)


@pytest.mark.parametrize("built", [False, True])
def test_pixel_statistics_warnings__of_weights_that_expect_others(built, weights):
    cfg = run_config(detector("fcos", weights=weights, out_features=LEVELS[1:]))
    (warning,) = pixel_statistics_warnings(cfg, instantiate(cfg.model) if built else None)
    assert "pixel_std [1.0, 1.0, 1.0] in BGR, and the weights of TimmBackbone expect" in warning
    assert str(HALF) in warning
    assert len(warning) < 500
    cfg.model.pixel_mean = cfg.model.pixel_std = HALF
    (warning,) = pixel_statistics_warnings(cfg)  # the order alone is another
    assert "in BGR" in warning
    cfg.dataloader.train.mapper.image_format = "RGB"
    assert pixel_statistics_warnings(cfg) == []


def test_pixel_statistics_warnings__of_several_orders():
    (warning,) = pixel_statistics_warnings(run_config(detector(), image_format="RGB"))
    assert "model.input_format=BGR, dataloader.train.mapper.image_format=RGB" in warning


def test_pixel_statistics_warnings__without_weights_any_statistics_are_right(weights):
    cfg = run_config(detector())
    assert pixel_statistics_warnings(cfg) == []
    cfg = run_config(detector(weights=weights))
    cfg.train = {"init_checkpoint": "detector.pth"}
    assert pixel_statistics_warnings(cfg) == []


@pytest.mark.parametrize("source", ["https://example.invalid/w.pth", L(pytest.fail)()])
def test_pixel_statistics_warnings__fetches_nothing(source):
    assert pixel_statistics_warnings(run_config(detector(weights=source))) == []


@pytest.mark.parametrize("cfg", [OmegaConf.create({}), OmegaConf.create({"model": 5})])
def test_pixel_statistics_warnings__nothing_to_compare(cfg):
    assert pixel_statistics_warnings(cfg) == []


def test_pixel_statistics_warnings__detector_that_keeps_its_backbone_elsewhere(weights):
    cfg = run_config(detector(weights=str(weights)))
    built = nn.Module()
    built.encoder = nn.Identity()
    assert len(pixel_statistics_warnings(cfg)) == 1
    assert pixel_statistics_warnings(cfg, built) == []
