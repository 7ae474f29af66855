import json
from types import SimpleNamespace

import pytest
import timm
import torch
from detectron2.config import instantiate

from detrex.cli import main
from detrex.cli.catalogue import Entry
from detrex.cli.show import facts_of
from detrex.modeling.backbone import TimmBackbone


def test_show__pyramid(capsys):
    assert main(["backbones", "show", "resnet18", "--library", "timm", "--size", "64x96"]) == 0
    text = capsys.readouterr().out
    assert "res3    128 channels  from 2" in text
    assert "images of any size" in text
    assert "freeze_at=5     11.18M parameters, 100%" in text
    assert "weights=True" in text


def test_show__config_can_be_pasted(capsys):
    assert main(["backbones", "show", "resnet18", "--json", "--library", "timm"]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = SimpleNamespace()
    exec(facts["config"].replace("weights=True", "weights=None"), {"model": model})
    backbone = instantiate(model.backbone)
    assert isinstance(backbone, TimmBackbone)
    assert {row["name"]: row["channels"] for row in facts["levels"]} == backbone.features.channels


def test_facts_of__frozen_counts_are_those_of_a_real_backbone():
    facts = facts_of(Entry("test_vit", "timm", "flat", (16,)), (64, 96))
    for freeze_at, count in facts["frozen_params"].items():
        backbone = TimmBackbone("test_vit", out_strides=(8, 16, 32), freeze_at=freeze_at)
        parameters = backbone.timm_model.parameters()
        assert count == sum(p.numel() for p in parameters if not p.requires_grad)
    network = timm.create_model("test_vit", features_only=True, out_indices=(5,))
    assert facts["params"] == sum(p.numel() for p in network.parameters())
    assert facts["params_made"] > 0
    assert facts["fitted_size"] == [64, 96]


def test_facts_of__tiles():
    facts = facts_of(Entry("levit_128s", "timm", "partial", (16,)), (300, 500))
    assert facts["tiles"] == 6
    assert facts["padding_constraints"]["size_divisibility"] == 224
    assert torch.get_default_device().type == "cpu"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nodes__by_stride(options, capsys):
    assert main(["backbones", "nodes", "resnet18", *options]) == 0
    text = capsys.readouterr().out
    if options:
        assert {row["node"]: row["stride"] for row in json.loads(text)}["layer3"] == 16
    else:
        assert "layer3                         256 channels  NCHW  <- out_strides takes" in text


def test_nodes__unknown_name(capsys):
    assert main(["backbones", "nodes", "resnet5O"]) == 1
    assert "Did you mean 'resnet50'" in capsys.readouterr().err
