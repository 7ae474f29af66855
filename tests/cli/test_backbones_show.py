import json
from types import SimpleNamespace

import pytest
from detectron2.config import instantiate

from detrex.cli import main
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
