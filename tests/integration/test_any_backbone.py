"""Networks of many kinds train DINO from a config that changes one line of the default's model."""

import json
import math

import pytest

from detrex.data.demo.shapes import write_shapes_dataset
from detrex.engine import run
from tests.reference.tiny_transformers import SMALL_VIT, SWIN

STEPS = 5

CONFIG = """
from detectron2.config import LazyCall as L

from detrex.config import get_config
from detrex.modeling.backbone import {wrapper}

base = get_config("dino/demo_shapes.py")
dataloader, lr_multiplier, optimizer, train = (
    base.dataloader, base.lr_multiplier, base.optimizer, base.train
)
model = get_config("dino/models/dino_r50.py").model
model.backbone = L({wrapper})(model_name="{name}", out_strides=(8, 16, 32), **{keywords})
"""

KINDS = {
    "residual": ("TimmBackbone", "test_resnet"),
    "convnext": ("TimmBackbone", "convnext_atto"),
    "mobile": ("TimmBackbone", "mobilenetv3_small_050"),
    "shifted_windows_nhwc": ("TimmBackbone", "swin_tiny_patch4_window7_224"),
    "plain_vit": ("TimmBackbone", "test_vit"),
    "plain_vit_of_patch_14": ("TimmBackbone", "vit_small_patch14_dinov2"),
    "plain_vit_with_rotary_positions": ("TimmBackbone", "vit_small_patch16_dinov3"),
    "two_branches_of_odd_strides": ("TimmBackbone", "crossvit_tiny_240"),
    "one_size_only_without_stride_8": ("TimmBackbone", "levit_128s"),
    "mlp": ("TimmBackbone", "mixer_s32_224"),
    "parallel_branches": ("TimmBackbone", "hrnet_w18_small"),
    "state_space_nhwc": ("TimmBackbone", "mambaout_femto"),
    "torchvision_regnet": ("TorchvisionBackbone", "regnet_y_400mf"),
    "torchvision_swin": ("TorchvisionBackbone", "swin_t"),
    "torchvision_vit": ("TorchvisionBackbone", "vit_b_32"),
    "transformers_swin": ("HuggingFaceBackbone", "swin", SWIN),
    "transformers_vit": ("HuggingFaceBackbone", "vit", SMALL_VIT),
}
QUICK = (
    "residual",
    "plain_vit",
    "two_branches_of_odd_strides",
    "torchvision_regnet",
    "transformers_swin",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes_dataset(folder / "train", 12, image_size=(72, 104), seed=0, max_objects=3)
    write_shapes_dataset(folder / "val", 3, image_size=(53, 91), seed=1, max_objects=3)
    return folder


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_two_line_config__trains(kind, data, tmp_path):
    wrapper, name, *keywords = KINDS[kind]
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(wrapper=wrapper, name=name, keywords=(keywords or [{}])[0]))
    run(
        [
            *("--config-file", str(config), f"dataloader.folder={data}"),
            *(f"train.output_dir={tmp_path}", f"train.max_iter={STEPS}", "train.eval_period=0"),
            *("train.device=cpu", "train.seed=7", "train.log_period=1"),
            *("dataloader.train.total_batch_size=2", "model.num_queries=30"),
            "model.num_classes=3",
            *("model.transformer.encoder.num_layers=1", "model.transformer.decoder.num_layers=2"),
        ]
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert len(losses) == STEPS
    assert all(math.isfinite(loss) for loss in losses)
