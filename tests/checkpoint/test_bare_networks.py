"""A file of a network alone starts a detector of that network, and of no deeper or wider one."""

from contextlib import nullcontext

import pytest
import timm
import torch
import torchvision
from detectron2.modeling import FPN
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.vit import ViT
from torch import nn

from detrex.checkpoint import load_init_checkpoint
from detrex.checkpoint.bare_networks import check_network
from detrex.checkpoint.report import LoadReport
from detrex.errors import CheckpointError
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone

LEVELS = ["res3", "res4", "res5"]


class Detector(nn.Module):
    """A backbone, and a head that no file of a network alone has."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(8, 5)


def detectron2_resnet(depth):
    return ResNet(BasicStem(), ResNet.make_default_stages(depth), out_features=LEVELS)


def vit(**keywords):
    return ViT(32, 8, embed_dim=24, depth=3, num_heads=2, window_size=0, **keywords)


def under_fpn(network):
    return FPN(network, LEVELS, 8)


def state(network):
    tensors = network if isinstance(network, dict) else network.state_dict()
    return {name: torch.rand_like(value.float()) for name, value in tensors.items()}


def values(detector):
    return {name: value.clone() for name, value in detector.state_dict().items()}


TIMM, TORCHVISION = (
    (lambda name, wrapper=wrapper: wrapper(name, out_features=LEVELS))
    for wrapper in (TimmBackbone, TorchvisionBackbone)
)


@pytest.mark.parametrize(
    ("network", "file", "words"),
    [
        (lambda: TIMM("resnet18"), lambda: timm.create_model("resnet50"), "TimmBackbone('resnet50"),
        (
            lambda: under_fpn(TORCHVISION("resnet18")),
            torchvision.models.resnet50,
            "TorchvisionBackbone('resnet50')",
        ),
        (
            lambda: TORCHVISION("resnet34"),
            torchvision.models.resnet18,
            "TorchvisionBackbone('resnet18')",
        ),
        (
            lambda: TORCHVISION("resnet50"),
            torchvision.models.wide_resnet50_2,
            "TorchvisionBackbone('wide_resnet50_2')",
        ),
        (lambda: under_fpn(detectron2_resnet(34)), lambda: detectron2_resnet(18), "a value"),
        (lambda: detectron2_resnet(18), lambda: detectron2_resnet(50), "other shapes for"),
        (
            lambda: under_fpn(detectron2_resnet(18)),
            lambda: dict(list(detectron2_resnet(18).state_dict().items())[:-30]),
            "it has nothing for 'res5.",
        ),
    ],
    ids=["deeper", "deeper tv", "shallower tv", "wider", "shallower d2", "deeper d2", "damaged"],
)
def test_load_init_checkpoint__file_of_another_network(network, file, words):
    detector = Detector(network())
    before = values(detector)
    with pytest.raises(CheckpointError, match=r"^w\.pth .* and at least \d0% must") as raised:
        load_init_checkpoint(detector, state(file()), name="w.pth")
    message = str(raised.value)
    assert words in message
    assert len(message) < 500
    torch.testing.assert_close(values(detector), before, rtol=0, atol=0)


def test_load_init_checkpoint__relative_positions_start_afresh():
    detector, tensors = Detector(vit(use_rel_pos=True, residual_block_indexes=[1])), state(vit())
    report = load_init_checkpoint(detector, tensors)
    assert report.share < 0.9
    assert set(report.matched) == set(tensors)


@pytest.mark.parametrize(("added", "raises"), [("conv2_offset.weight", False), ("conv4", True)])
def test_check_network__what_a_detector_adds(added, raises):
    report = LoadReport(
        "w.pth",
        matched=tuple(f"res{i}.conv2" for i in range(80)),
        missing=tuple(f"res{i}.{added}" for i in range(20)),
        unexpected=(),
        mismatched=(),
    )
    expected = pytest.raises(CheckpointError, match="80 of 100") if raises else nullcontext()
    with expected:
        check_network(nn.Identity(), report, "backbone", {})


class Custom(nn.Module):
    """A pyramid that holds its network under a name of its own."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.laterals = nn.ModuleList([nn.Conv2d(3, 4, 1) for _ in range(20)])


def test_load_init_checkpoint__network_under_a_name_of_its_own():
    detector = Detector(Custom(timm.create_model("test_resnet")))
    tensors = state(timm.create_model("test_resnet"))
    report = load_init_checkpoint(detector, tensors)
    assert report.share < 0.9
    assert all(name.startswith("body.") for name in report.matched)


def test_load_init_checkpoint__cut_network():
    cut = Detector(TimmBackbone("resnet18", out_features=["res3"]))
    assert load_init_checkpoint(cut, state(timm.create_model("resnet18"))).share == 1


def test_load_init_checkpoint__network_of_another_pyramid():
    detector, tensors = Detector(under_fpn(detectron2_resnet(18))), state(detectron2_resnet(18))
    tensors = {f"bottom_up.{name}": value for name, value in tensors.items()}
    tensors |= {f"fpn_lateral{i}.weight": torch.zeros(9, 128, 1, 1) for i in (3, 4, 5)}
    report = load_init_checkpoint(detector, tensors)
    assert len(report.matched) == len(detectron2_resnet(18).state_dict())
