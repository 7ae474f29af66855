"""Every config loads, calls what exists with arguments it has, survives YAML, and trains a step."""

import ast
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances

from detrex.config import load_config
from detrex.config.lint import check_targets

ROOT = Path(__file__).resolve().parents[2] / "configs"
ALL = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
MODELS = [name for name in ALL if name.startswith("dino/models/")]
RUNS = [name for name in ALL if not name.startswith("common/") and name not in MODELS]
DINOS = [name for name in RUNS if name.startswith("dino/")]

# What makes a detector small enough to run here; its structure stays.
SMALL_DETECTOR = [
    "model.embed_dim=32",
    "model.position_embedding.num_pos_feats=16",
    "model.transformer.encoder.num_layers=1",
    "model.transformer.encoder.feedforward_dim=48",
    "model.transformer.decoder.num_layers=2",
    "model.transformer.decoder.feedforward_dim=48",
    "model.num_queries=20",
    "model.select_box_nums_for_evaluation=10",
    "model.num_classes=7",
]
SMALL_EVA = [
    "model.backbone.net.img_size=96",
    "model.backbone.net.embed_dim=32",
    "model.backbone.net.num_heads=2",
    "model.backbone.net.depth=2",
    "model.backbone.net.window_size=4",
    "model.backbone.net.window_block_indexes=[0]",
]
# One of each structure, with what makes its backbone small.
SMALL_BACKBONE = {
    "dino/dino_r50_4scale_12ep.py": [],
    "dino/dino_r50_5scale_12ep.py": [],
    "dino/dino_convnext_small_384_4scale_12ep.py": [
        "model.backbone.depths=[1,1,1,1]",
        "model.backbone.dims=[8,16,24,32]",
    ],
    "dino/dino_focalnet_large_lrf_384_fl4_5scale_12ep.py": [
        "model.backbone.depths=[1,1,1,1]",
        "model.backbone.embed_dim=8",
    ],
    "dino/dino_internimage_small_4scale_12ep.py": [
        "model.backbone.channels=8",
        "model.backbone.depths=[1,1,1,1]",
        "model.backbone.groups=[1,2,4,8]",
    ],
    "dino/dino_eva_01_1280_4scale_12ep.py": [*SMALL_EVA, "model.backbone.net.mlp_ratio=2"],
    "dino/dino_eva_02_vitdet_l_4attn_1024_lrd0p8_4scale_12ep.py": SMALL_EVA,
    "dino/dino_swin_tiny_224_4scale_12ep.py": ["model.backbone.depths=[1,1,1,1]"],
    "dino/dino_vitdet_base_4scale_12ep.py": [
        "model.backbone.net.img_size=96",
        "model.backbone.net.depth=2",
        "model.backbone.net.window_block_indexes=[0]",
    ],
    "dino/timm_example.py": [
        "model.backbone.pretrained=False",
        "model.backbone.model_name=resnet26d",
    ],
    "dino/torchvision_example.py": ["model.backbone.pretrained=False"],
}


def load(name, overrides=()):
    return LazyConfig.apply_overrides(load_config(ROOT / name), list(overrides))


def batch():
    """Two pictures of unlike sizes, the second without objects."""
    samples = []
    for (height, width), count in (((64, 83), 3), ((71, 59), 0)):
        instances = Instances((height, width))
        corners = (
            torch.tensor([[5.0, 7.0, 31.0, 29.0]]).repeat(count, 1) + torch.arange(count)[:, None]
        )
        instances.gt_boxes = Boxes(corners)
        instances.gt_classes = torch.arange(count)
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        samples.append({"image": image, "height": 97, "width": 101, "instances": instances})
    return samples


@pytest.mark.parametrize("name", ALL)
def test_all_configs__load_and_targets_bind(name):
    cfg = load(name)
    if "model" not in cfg:
        # What a run would bring along.
        cfg.model = {"num_classes": 3}
    assert check_targets(cfg) == []


@pytest.mark.parametrize("name", RUNS)
def test_all_configs__have_all_parts_and_a_header(name):
    assert {"model", "dataloader", "optimizer", "lr_multiplier", "train"} <= set(load(name))
    header = ast.get_docstring(ast.parse((ROOT / name).read_text()))
    for entry in ("detector:", "backbone:", "paper:", "command:", "hardware:", "box AP:"):
        assert entry in header, f"{name} does not state its {entry}"
    assert name in header or "/demo_" in name, "the command names another config"


@pytest.mark.parametrize("name", RUNS)
def test_all_configs__survive_yaml(name, tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    LazyConfig.save(load(name), str(first))
    again = load_config(first)
    assert check_targets(again) == []
    LazyConfig.save(again, str(second))
    assert first.read_text() == second.read_text()
    # What cannot be written as YAML is pickled instead.
    assert not list(tmp_path.glob("*.pkl"))


@pytest.mark.parametrize("name", SMALL_BACKBONE)
def test_all_configs__small_one_trains_and_evaluates(name):
    cfg = load(name, [*SMALL_DETECTOR, *SMALL_BACKBONE[name], "train.device=cpu"])
    model = instantiate(cfg.model)
    losses = model.train()(batch())
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert model.class_embed[0].weight.grad.abs().sum() > 0
    with torch.no_grad():
        results = model.eval()(batch())
    assert [len(result["instances"]) for result in results] == [10, 10]
    assert results[0]["instances"].image_size == (97, 101)


# detectron2's Swin and ViT cannot be built without memory.
@pytest.mark.parametrize(
    "name", [name for name in DINOS if not re.search("swin|dino_vitdet|photographs", name)]
)
def test_all_configs__parts_fit_together(name):
    overrides = ["model.backbone.pretrained=False"] if "_example" in name else []
    with torch.device("meta"):
        model = instantiate(load(name, overrides).model)
    shapes = model.backbone.output_shape()
    assert set(model.neck.in_features) <= set(shapes)


@pytest.mark.parametrize("name", MODELS)
def test_models__write_nothing_that_follows_from_the_backbone(name):
    model = load(name).model
    assert not {"input_shapes", "in_features"} & set(model.neck)
    assert model.position_embedding.num_pos_feats is None


@pytest.mark.parametrize("name", ["dino/models/dino_r50.py", "dino/dino_r50_4scale_12ep.py"])
def test_dino_r50__has_the_published_number_of_entries(name):
    with torch.device("meta"):
        model = instantiate(load(name, ["model.device=cpu"]).model)
    assert len(model.state_dict()) == 634
