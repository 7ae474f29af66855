import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import SwinTransformer
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_config
from detrex.engine.dry_run import (
    SavedBytes,
    build_on_meta,
    count_parameters,
    dry_run,
    training_size,
    without_weights,
)
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone


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


def test_without_weights__fetches_nothing_and_says_so():
    model = small_model()
    model.backbone = L(TimmBackbone)(model_name="test_resnet", pretrained=True, out_strides=(8, 16))
    notes = []
    copied = without_weights(model, notes)
    assert not copied.backbone.pretrained
    assert model.backbone.pretrained
    assert notes == ["model.backbone.pretrained=True is left out: nothing is fetched"]


@pytest.mark.parametrize(
    "call",
    [
        L(TorchvisionBackbone)(model_name="regnet_x_400mf", out_strides=(8,)),
        L(SwinTransformer)(depths=[1, 1], num_heads=[1, 1], embed_dim=8, out_indices=[0, 1]),
    ],
)
def test_build_on_meta__network_that_computes_in_its_constructor(call):
    assert all(parameter.is_meta for parameter in build_on_meta(call).parameters())


def test_training_size__is_the_augmentations():
    assert training_size(get_config("dino/dino_r50_4scale_12ep.py")) == (800, 1333)
    assert training_size(OmegaConf.create({"model": 1})) == (800, 1333)
