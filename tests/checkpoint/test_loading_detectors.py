"""Files of a network alone reach it under FPN, a simple feature pyramid and a C4 detector."""

import pytest
import timm
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer as D2Checkpointer
from detectron2.modeling import FPN, SimpleFeaturePyramid
from detectron2.modeling.backbone import BasicStem, ResNet
from torch import nn

from detrex.checkpoint import DetectionCheckpointer, load_init_checkpoint
from detrex.modeling.backbone import RoiStage, TimmBackbone, TorchvisionBackbone

LEVELS = ["res3", "res4", "res5"]


class Detector(nn.Module):
    """A backbone, and a head that no file of a network alone has."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(8, 5)


class C4(Detector):
    """The last stage of the network stands in the head, as in ``Res5ROIHeads``."""

    def __init__(self, backbone, res5):
        super().__init__(backbone)
        self.roi_heads = nn.Module()
        self.roi_heads.res5 = res5


def resnet(out_features=("res3", "res4", "res5")):
    stages = ResNet.make_default_stages(18, norm="BN")
    return ResNet(BasicStem(norm="BN"), stages, out_features=list(out_features))


def values(network):
    """Tensors by name, no two of them alike."""
    torch.manual_seed(1)
    return {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


def under_fpn(bottom_up):
    return Detector(FPN(bottom_up, LEVELS, 8)), "backbone.bottom_up"


def under_pyramid():
    net = TimmBackbone("test_vit", out_features=["res4"])
    pyramid = SimpleFeaturePyramid(net, "res4", 8, (2.0, 1.0))
    return (Detector(pyramid), "backbone.net"), timm.create_model("test_vit"), "timm_model.model."


CASES = {
    "timm": lambda: (
        under_fpn(TimmBackbone("test_resnet", out_features=LEVELS)),
        timm.create_model("test_resnet"),
        "timm_model.",
    ),
    "torchvision": lambda: (
        under_fpn(TorchvisionBackbone("resnet18", out_features=LEVELS)),
        torchvision.models.resnet18(),
        "feature_extractor.",
    ),
    "detectron2": lambda: (under_fpn(resnet()), resnet(), ""),
    "simple feature pyramid": under_pyramid,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_load_init_checkpoint__reaches_the_network_inside(case, tmp_path):
    (detector, path), network, prefix = case()
    file = values(network)
    torch.save(file, tmp_path / "w.pth")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = load_init_checkpoint(detector, tmp_path / "w.pth")
    assert (report.part, report.share) == (path, 1)
    after = detector.state_dict()
    for name, value in after.items():
        own = name.removeprefix(f"{path}.{prefix}")
        expected = file[own] if own in file and name.startswith(path) else before[name]
        torch.testing.assert_close(value, expected, rtol=0, atol=0, msg=name)


def test_load_init_checkpoint__a_backbone_with_its_pyramid_is_loaded_as_such():
    (detector, _), (other, _) = under_fpn(resnet()), under_fpn(resnet())
    report = load_init_checkpoint(detector, other.backbone.state_dict())
    assert (report.part, report.share) == ("backbone", 1)
    torch.testing.assert_close(
        dict(detector.backbone.state_dict()), dict(other.backbone.state_dict()), rtol=0, atol=0
    )


def test_load_init_checkpoint__last_stage_stands_in_the_head(caplog):
    full = values(resnet())
    detector = C4(resnet(["res4"]), resnet().res5)
    report = load_init_checkpoint(detector, full)
    assert (report.part, report.share) == ("backbone", 1)
    filled = {f"res5.{name}": value for name, value in detector.roi_heads.res5.state_dict().items()}
    assert filled
    torch.testing.assert_close(filled, {name: full[name] for name in filled}, rtol=0, atol=0)
    assert "roi_heads.res5, the stage that regions pass, which is left" not in caplog.text


def test_load_init_checkpoint__a_wrapped_networks_last_stage_is_filled_from_its_own_file():
    full = values(timm.create_model("test_resnet"))
    whole = TimmBackbone("test_resnet", out_strides=(16, 32))
    detector = C4(TimmBackbone("test_resnet", out_strides=(16,)), RoiStage(whole))
    assert load_init_checkpoint(detector, full).part == "backbone"
    stage = detector.roi_heads.res5.backbone.timm_model.state_dict()
    filled = stage | detector.backbone.timm_model.state_dict()
    assert {name.split(".")[0] for name in stage} == {"layer4"}
    torch.testing.assert_close(filled, {name: full[name] for name in filled}, rtol=0, atol=0)


def test_load_init_checkpoint__last_stage_of_another_network_is_left(caplog):
    stage = nn.Sequential(nn.Conv2d(256, 9, 1), nn.BatchNorm2d(9))
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    load_init_checkpoint(C4(resnet(["res4"]), stage), values(resnet()))
    torch.testing.assert_close(dict(stage.state_dict()), before, rtol=0, atol=0)
    assert "roi_heads.res5, the stage that regions pass, which is left" in caplog.text


def test_wrapper__says_that_detectron2s_checkpointer_has_nothing_for_it(tmp_path, caplog):
    (detector, path), network, _ = CASES["timm"]()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    D2Checkpointer(detector).load(str(tmp_path / "w.pth"))
    assert f"nothing is named {path}.* among the weights that are loaded" in caplog.text
    caplog.clear()
    torch.save({"model": detector.state_dict()}, tmp_path / "detector.pth")
    D2Checkpointer(detector).load(str(tmp_path / "detector.pth"))
    DetectionCheckpointer(detector).load(tmp_path / "w.pth")
    assert "nothing is named" not in caplog.text


def test_wrapper__keeps_its_weights_under_detectron2s_checkpointer(tmp_path):
    file = values(timm.create_model("test_resnet"))
    torch.save(file, tmp_path / "w.pth")
    bottom_up = TimmBackbone("test_resnet", out_features=LEVELS, weights=tmp_path / "w.pth")
    detector, _ = under_fpn(bottom_up)
    D2Checkpointer(detector).load("")
    torch.testing.assert_close(bottom_up.timm_model.conv1[0].weight.data, file["conv1.0.weight"])
