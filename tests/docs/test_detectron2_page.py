"""The diff on the page of detectron2's detectors, applied to detectron2's own config."""

import re
import shutil
from pathlib import Path

import detectron2
import torch
from detectron2.config import instantiate

from detrex.config import load_config
from tests.docs.code_blocks import ROOT

CONFIGS = Path(detectron2.__file__).parent / "model_zoo/configs"
NAME = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"


def diff_of(page):
    (block,) = re.findall(r"^```diff\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    return block.splitlines()


def test_diff__puts_a_convnext_under_mask_rcnn(tmp_path):
    lines = diff_of("docs/tutorials/detectron2.md")
    before = [line[1:] for line in lines if line[0] in " -"]
    assert before == (CONFIGS / NAME).read_text().splitlines()
    shutil.copytree(CONFIGS / "common", tmp_path / "common")
    config = tmp_path / NAME
    config.parent.mkdir()
    config.write_text("\n".join(line[1:] for line in lines if line[0] in " +"))
    cfg = load_config(config)

    model = cfg.model
    assert model.backbone.bottom_up.weights is True
    model.backbone.bottom_up.weights = None
    with torch.device("meta"):
        detector = instantiate(model)
    assert detector.backbone.bottom_up.output_shape()["res5"].channels == 768
    assert list(detector.backbone.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    assert list(model.pixel_std) == [58.395, 57.12, 57.375]
    formats = (
        model.input_format,
        *(cfg.dataloader[p].mapper.image_format for p in ("train", "test")),
    )
    assert formats == ("RGB",) * 3
    assert not cfg.train.init_checkpoint
