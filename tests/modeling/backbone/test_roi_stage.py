"""The last stage of a network on regions is what the network itself computes there."""

import copy

import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.modeling.backbone import Backbone, RegNet
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone import RoiStage, TimmBackbone, TorchvisionBackbone

STRIDES = {"out_strides": (16, 32)}
SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), **STRIDES}
# By what is particular: channels last, tokens, lists of modules, sums of nodes, functions of nodes.
BACKBONES = {
    "chain": lambda: TimmBackbone("test_resnet", **STRIDES),
    "NHWC": lambda: TimmBackbone("swin_tiny_patch4_window7_224", **SWIN),
    "tokens": lambda: TimmBackbone("levit_128s", **STRIDES),
    "blocks": lambda: TimmBackbone("test_efficientnet", **STRIDES),
    "nodes": lambda: TorchvisionBackbone("mobilenet_v3_small", **STRIDES),
    "detectron2": lambda: RegNet(
        **dict(stem_class=SimpleStem, stem_width=8, block_class=ResBottleneckBlock, norm="BN"),
        **dict(depth=6, w_a=24.0, w_0=16, w_m=2.0, group_width=8, out_features=["s3", "s4"]),
    ),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_roi_stage__equals_the_network(name):
    torch.manual_seed(0)
    whole = BACKBONES[name]().eval()
    first, last = whole.output_shape()
    state = whole.state_dict()
    with torch.no_grad():
        maps = whole(torch.randn(2, 3, 224, 224))
    stage = RoiStage(copy.deepcopy(whole), first, last).eval()
    with torch.no_grad():
        observed = stage(maps[first])
    assert torch.equal(observed, maps[last])
    assert stage.out_channels == observed.shape[1] < 10**4
    kept = {key.removeprefix("backbone."): value for key, value in stage.state_dict().items()}
    assert 0 < len(kept) < len(state)
    assert all(torch.equal(value, state[key]) for key, value in kept.items())


def test_roi_stage__learns():
    stage = RoiStage(BACKBONES["chain"]()).train()
    channels = next(iter(stage.backbone.output_shape().values())).channels
    for regions in (0, 3):
        x = torch.randn(regions, channels, 14, 14, requires_grad=True)
        output = stage(x)
        assert output.shape == (regions, stage.out_channels, 7, 7)
        output.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape
    missing = [n for n, p in stage.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@pytest.mark.parametrize("options", [{}, {"grad_checkpointing": True}])
@pytest.mark.parametrize("name", ["test_resnet", "resnet18"])
def test_roi_stage__statistics_are_those_of_regions(name, options):
    build = TimmBackbone if name == "test_resnet" else TorchvisionBackbone
    stage = RoiStage(build(name, **options, **STRIDES)).train()
    channels = stage.backbone.output_shape()["res4"].channels
    before = {key: value.clone() for key, value in stage.named_buffers()}
    x = torch.zeros(0, channels, 14, 14, requires_grad=True)
    stage(x).sum().backward()
    assert before
    assert all(torch.equal(value, before[key]) for key, value in stage.named_buffers())
    assert all(p.grad is not None and not p.grad.any() for p in stage.parameters())
    stage(torch.randn(2, channels, 14, 14))
    counts = [value for key, value in stage.named_buffers() if key.endswith("batches_tracked")]
    assert counts
    assert all(count == 1 for count in counts)


def test_roi_stage__frozen_parts_stay_frozen():
    stage = RoiStage(TimmBackbone("test_resnet", freeze_at=5, frozen_norm=True, **STRIDES)).train()
    assert not any(p.requires_grad for p in stage.parameters())
    assert not stage.backbone.timm_model.layer4.training
    stage = RoiStage(TimmBackbone("test_resnet", freeze_at=2, **STRIDES)).train()
    assert all(p.requires_grad for p in stage.parameters())
    assert stage.backbone.timm_model.layer4.training


@pytest.mark.parametrize("options", [{}, {"grad_checkpointing": True}])
@pytest.mark.parametrize("freeze_at", [2, 5])
def test_roi_stage__of_a_graph_keeps_what_is_frozen(freeze_at, options):
    whole = TorchvisionBackbone("resnet18", freeze_at=freeze_at, **options, **STRIDES)
    stage = RoiStage(whole).train()
    layer = stage.backbone.feature_extractor.layer4
    assert layer.training == (freeze_at == 2)
    x = torch.randn(2, 256, 14, 14, requires_grad=True)
    stage(x).sum().backward()
    assert x.grad is not None
    assert all((p.grad is not None) == (freeze_at == 2) for p in stage.parameters())


class _Positioned(Backbone):
    """Network whose first table of four axes is no kernel."""

    def __init__(self, channels):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.stem = Conv2d(channels, 8, 16, 16)
        self.stage = Conv2d(8, 4, 2, 2)
        self._out_features = ["res4", "res5"]
        self._out_feature_channels = {"res4": 8, "res5": 4}
        self._out_feature_strides = {"res4": 16, "res5": 32}

    def forward(self, x):
        fine = self.stem(x + 0 * self.table.sum())
        return {"res4": fine, "res5": self.stage(fine)}


@pytest.mark.parametrize(
    "build",
    [
        lambda: _Positioned(3),
        lambda: _Positioned(4),
        lambda: TimmBackbone("tresnet_m", **STRIDES),  # its stem convolves 4 x 4 pixels of 3 each
    ],
)
def test_roi_stage__image_channels_are_not_those_of_any_table(build):
    backbone = build()
    fine, coarse = backbone.output_shape().values()
    regions = RoiStage(backbone)(torch.zeros(2, fine.channels, 14, 14))
    assert regions.shape == (2, coarse.channels, 7, 7)


def test_roi_stage__is_built_and_run_on_meta_and_copied():
    with torch.device("meta"):
        stage = RoiStage(TimmBackbone("test_resnet", **STRIDES))
        channels = stage.backbone.output_shape()["res4"].channels
        assert stage(torch.empty(3, channels, 14, 14)).shape[-2:] == (7, 7)
    stage = RoiStage(TimmBackbone("test_resnet", **STRIDES)).eval()
    x = torch.randn(2, channels, 14, 14)
    assert torch.equal(copy.deepcopy(stage)(x), stage(x))


def test_roi_stage__draws_nothing_random_and_keeps_the_mode():
    backbone = TimmBackbone("test_resnet", **STRIDES).train()
    state = torch.random.get_rng_state()
    stage = RoiStage(backbone)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert stage.training
    assert stage.backbone.timm_model.layer4.training


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimmBackbone("test_vit", **STRIDES), "gives res4, and nothing else, to"),
        (lambda: TimmBackbone("test_resnet", output_stride=16, **STRIDES), "has no map res5"),
        (lambda: TimmBackbone("test_resnet", out_strides=(16,)), "gives the maps res4, got 'res5'"),
    ],
)
def test_roi_stage__says_why_it_cannot(build, message):
    with pytest.raises(BackboneError, match=message):
        RoiStage(build())


def test_roi_stage__checks_the_channels_that_a_config_states():
    backbone = TimmBackbone("test_resnet", **STRIDES)
    with pytest.raises(BackboneError, match=r"res5 of TimmBackbone has \d+ channels, got out_.*=7"):
        RoiStage(backbone, out_channels=7)
