import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_config, get_detectron2_config
from detrex.engine.dry_run import (
    SavedBytes,
    count_parameters,
    dry_run,
    training_size,
)
from detrex.modeling.backbone import TimmBackbone
from tests.engine.test_meta_forward import small_vitdet


def small_model():
    model = get_config("dino/demo_shapes.py").model
    model.device = "cpu"
    return model


def test_dry_run__counts_are_those_of_the_real_model():
    seen = dry_run(small_model(), (64, 96))
    real = instantiate(small_model())
    assert seen.findings == []
    assert seen.parameters == count_parameters(real)
    assert seen.parameters["all"][0] == sum(p.numel() for p in real.parameters())
    assert [line.split()[0] for line in seen.levels] == ["res3", "res4"]
    assert seen.neck[0].split()[-4:] == ["8", "x", "12", "cells"]
    assert seen.gflops > 0


def test_dry_run__bytes_are_those_that_autograd_keeps():
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 3))
    image = torch.randn(2, 3, 11, 13)
    saved = SavedBytes(network)
    with saved:
        network(image)
    # The image for the first kernel, and the result of the activation for itself and the second.
    assert saved.total == 4 * (image.numel() + 2 * 5 * 9 * 11)


def test_dry_run__detector_without_a_backbone():
    seen = dry_run(L(nn.Linear)(in_features=3, out_features=5), (64, 96))
    assert seen.findings == []
    assert seen.parameters["all"] == (20, 20)
    assert "no backbone" in seen.notes[-1]


def test_dry_run__shapes_that_do_not_meet_are_a_finding():
    model = small_model()
    model.position_embedding.num_pos_feats = 8
    seen = dry_run(model, (64, 96))
    assert len(seen.findings) == 1
    assert "do not fit together" in seen.findings[0]


def test_dry_run__backbone_that_fails_ends_what_depends_on_it():
    model = small_model()
    model.backbone = L(TimmBackbone)(model_name="resnet5O", out_strides=(8, 16))
    seen = dry_run(model, (64, 96))
    assert seen.findings[0].startswith("model.backbone: timm has no model named 'resnet5O'.")
    assert seen.parameters == {}


def test_dry_run__goes_on_with_the_parts_beside_a_backbone_that_fails():
    model = small_model()
    model.backbone = L(TimmBackbone)(model_name="resnet5O", out_strides=(8, 16))
    model.transformer.encoder.num_heads = 7
    findings = dry_run(model, (64, 96)).findings
    assert [finding.partition(":")[0] for finding in findings] == [
        "model.backbone",
        "model.transformer",
    ]


def test_dry_run__table_of_what_is_frozen():
    model = small_model()
    model.neck.input_shapes = model.neck.in_features = None
    model.backbone = L(TimmBackbone)(model_name="test_resnet", out_strides=(8, 16), freeze_at=2)
    seen = dry_run(model, (64, 96))
    assert seen.findings == []
    assert "stage 1" in seen.frozen


def _frozen(net):
    return net.requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("mask_rcnn_fpn", "backbone.bottom_up", "bottom_up.stem, bottom_up.res2;"),
        ("retinanet", "backbone.bottom_up", "bottom_up.stem, bottom_up.res2;"),
        ("mask_rcnn_c4", "backbone", "stem, res2;"),
    ],
)
def test_dry_run__frozen_backbone_wherever_it_stands(name, path, expected):
    model = get_detectron2_config(f"common/models/{name}.py").model
    OmegaConf.select(model, path).freeze_at = 2
    seen = dry_run(model, (64, 96))
    assert seen.findings == []
    assert seen.frozen.startswith(f"frozen: {expected} 222,400 of")
    assert sum(seen.parameters["all"]) == 2 * seen.parameters["all"][1] + 222_400


def test_dry_run__frozen_inside_the_simple_feature_pyramid():
    model = small_vitdet()
    model.backbone.in_feature = "last_feat"
    model.backbone.net = L(_frozen)(net=model.backbone.net)
    seen = dry_run(model)
    assert seen.findings == []
    assert seen.frozen.startswith("frozen: net;")
    assert seen.size == (64, 64)


def test_dry_run__table_of_a_wrapper_inside_fpn():
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    names = ["res2", "res3", "res4", "res5"]
    model.backbone.bottom_up = L(TimmBackbone)(
        model_name="test_resnet", out_features=names, freeze_at=2
    )
    seen = dry_run(model, (65, 97))
    assert seen.findings == []
    assert "stage 1" in seen.frozen
    assert "images are padded to 96 x 128" in seen.levels
    assert [line.split()[0] for line in seen.levels][5:10] == ["from", *names]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("backbone.in_features", ["res9"], "model.backbone: KeyError: 'res9' at `"),
        ("roi_heads.box_head.fc_dims", [], "AssertionError at `assert len(conv_dims) + len(fc"),
        ("backbone.bottom_up", 5, "model.backbone"),
        ("roi_heads.box_head.input_shape.channels", 7, "Linear(in_features=343, out_features=10"),
    ],
)
def test_dry_run__mistakes_that_say_little_get_a_place(key, value, sentence):
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    OmegaConf.update(model, key, value, merge=False)
    assert sentence in dry_run(model, (64, 96)).findings[0]


def test_training_size__is_the_augmentations():
    assert training_size(get_config("dino/dino_r50_4scale_12ep.py")) == (800, 1333)
    assert training_size(OmegaConf.create({"model": 1})) is None
    cfg = get_config("dino/dino_r50_4scale_12ep.py")
    cfg.dataloader.train.mapper.augmentation = [L(T.FixedSizeCrop)(crop_size=(96, 128))]
    assert training_size(cfg) == (96, 128)
    cfg.dataloader.train.mapper.augmentation_with_crop = None
    for longest, expected in ((600, (600, 600)), (900, (800, 900))):
        resize = L(T.ResizeShortestEdge)(short_edge_length=[480, 800], max_size=longest)
        cfg.dataloader.train.mapper.augmentation = [resize]
        assert training_size(cfg) == expected
        taken = T.ResizeShortestEdge([800], longest, "choice")
        picture = np.zeros((expected[0], expected[1], 3), dtype=np.uint8)
        assert taken(T.AugInput(picture)).apply_image(picture).shape[:2] == expected
