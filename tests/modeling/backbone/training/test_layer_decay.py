"""Layers by the order of the blocks, held against timm's own grouping."""

import pytest
import torch
from detectron2.modeling import FPN, ViT
from detectron2.modeling import SimpleFeaturePyramid as D2Pyramid
from torch import nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from detrex.errors import ConfigError
from detrex.modeling.backbone import (
    SimpleFeaturePyramid,
    TimmBackbone,
    TorchvisionBackbone,
    get_vit_lr_decay_rate,
)
from detrex.modeling.backbone.inspection.meta_run import run_on_meta
from detrex.modeling.backbone.training.layer_decay import get_layer_decay_params, layer_ids

timm = pytest.importorskip("timm")
optim = pytest.importorskip("timm.optim")


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(5, 7)


def vit():
    return timm.create_model("test_vit", num_classes=0, global_pool="", fc_norm=False)


def rates(groups):
    return {id(p): (round(g["lr"], 9), g.get("weight_decay")) for g in groups for p in g["params"]}


def test_get_layer_decay_params__equals_timm_on_a_vit():
    """But for the last norm, which timm counts to the last block: our layers are one more."""
    network = vit()
    ours = rates(get_layer_decay_params(Detector(network), 1.0, 0.05, 0.7))
    theirs = optim.param_groups_layer_decay(
        network, 0.05, network.no_weight_decay(), layer_decay=0.7
    )
    expected = {id(p): (g["lr_scale"], g["weight_decay"]) for g in theirs for p in g["params"]}
    for name, parameter in network.named_parameters():
        scale, decay = expected[id(parameter)]
        lr = scale if name.startswith("norm.") else 0.7 * scale
        assert ours[id(parameter)] == (pytest.approx(lr, abs=1e-8), decay), name


def test_get_layer_decay_params__leaves_the_detector_and_the_frozen_alone():
    detector = Detector(vit())
    detector.backbone.patch_embed.requires_grad_(False)
    wrapped = nn.Module()
    wrapped.module = detector
    groups = get_layer_decay_params(wrapped, 0.1, None, 0.5, lr_factor=0.2)
    found = rates(groups)
    assert found[id(detector.head.weight)] == (0.1, None)
    assert found[id(detector.head.bias)] == (0.1, 0.0)
    assert found[id(detector.backbone.norm.weight)] == (0.02, 0.0)
    assert id(detector.backbone.patch_embed.proj.weight) not in found
    torch.optim.AdamW(groups, lr=0.1)


def test_layer_ids__of_an_extractor_and_of_a_capped_network():
    network = timm.create_model("resnet18", features_only=True)
    depths, last = layer_ids(run_on_meta(network, [(64, 64)]))
    assert last == 9
    assert [depths[n] for n in ("conv1.weight", "layer1.1.conv1.weight", "layer4.1.bn2.bias")] == [
        0,
        2,
        8,
    ]
    capped, last = layer_ids(run_on_meta(network, [(64, 64)]), 4)
    assert last == 5
    assert [capped[f"layer{i}.{j}.conv1.weight"] for i in (1, 2) for j in (0, 1)] == [1, 1, 2, 2]


@pytest.mark.parametrize("wrong", [{"decay_rate": 0}, {"decay_rate": 1.1}, {"num_layers": 0}])
def test_get_layer_decay_params__refuses(wrong):
    with pytest.raises(ConfigError, match="decay_rate must be above 0"):
        get_layer_decay_params(Detector(vit()), 0.1, **wrong)


def test_get_layer_decay_params__needs_a_backbone():
    with pytest.raises(ConfigError, match="Linear has no backbone"):
        get_layer_decay_params(nn.Linear(3, 3), 0.1)


def test_layer_ids__of_torchvisions_extractor():
    network = create_feature_extractor(resnet18(), ["layer2", "layer4"])
    depths, last = layer_ids(run_on_meta(network, [(64, 64)]))
    assert (depths["conv1.weight"], depths["layer2.0.conv1.weight"], last) == (0, 3, 9)


def scales(model, **kwargs):
    found = rates(get_layer_decay_params(model, 1.0, **kwargs))
    return {name: found[id(p)][0] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("pyramid", [D2Pyramid, SimpleFeaturePyramid])
def test_get_layer_decay_params__equals_detectron2_under_a_simple_feature_pyramid(pyramid):
    net = ViT(img_size=64, embed_dim=32, depth=3, num_heads=2, window_size=0)
    detector = Detector(pyramid(net, "last_feat", 16, (2.0, 1.0), square_pad=64))
    found = scales(detector, decay_rate=0.7)
    assert found == pytest.approx({name: get_vit_lr_decay_rate(name, 0.7, 3) for name in found})
    assert len(set(found.values())) == 5


@pytest.mark.parametrize(
    "network",
    [
        lambda: TimmBackbone("test_resnet", out_features=["res3", "res4"], in_channels=4),
        lambda: TorchvisionBackbone("mobilenet_v3_small", out_features=["res3", "res4"]),
    ],
)
def test_get_layer_decay_params__is_that_of_the_network_under_fpn(network):
    bare = Detector(network())
    found = scales(Detector(FPN(bare.backbone, ["res3", "res4"], 8)), decay_rate=0.5, lr_factor=0.3)
    expected = {
        name.replace("backbone.", "backbone.bottom_up."): scale
        for name, scale in scales(bare, decay_rate=0.5, lr_factor=0.3).items()
        if name.startswith("backbone.")
    }
    own = {name: scale for name, scale in found.items() if name not in expected}
    assert {name: found[name] for name in expected} == expected
    assert set(own.values()) == {1.0}
    assert {name.split(".")[1][:4] for name in own if "backbone" in name} == {"fpn_"}
