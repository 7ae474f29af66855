"""What is said once on the command line reaches everything that depends on it."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from detrex.config import get_config

NAME = "dino/dino_r50_4scale_12ep.py"


def overridden(*overrides, name=NAME):
    return LazyConfig.apply_overrides(get_config(name), list(overrides))


@pytest.mark.parametrize(
    ("override", "followers"),
    [
        ("train.output_dir=elsewhere", ["dataloader.evaluator.output_dir"]),
        ("train.device=meta", ["model.device"]),
        ("model.num_classes=7", ["model.criterion.num_classes"]),
        ("model.num_queries=31", ["model.transformer.two_stage_num_proposals"]),
        (
            "model.neck.num_outs=5",
            [
                "model.transformer.num_feature_levels",
                "model.transformer.encoder.num_feature_levels",
                "model.transformer.decoder.num_feature_levels",
            ],
        ),
        (
            "model.embed_dim=64",
            [
                "model.neck.out_channels",
                "model.neck.norm_layer.num_channels",
                "model.transformer.encoder.embed_dim",
                "model.transformer.decoder.embed_dim",
            ],
        ),
        ("dataloader.test.dataset.names=other", ["dataloader.evaluator.dataset_name"]),
        ("optimizer.lr=0.5", ["optimizer.params.base_lr"]),
    ],
)
def test_overrides__reach_what_depends_on_them(override, followers):
    cfg = overridden(override)
    value = OmegaConf.select(cfg, override.partition("=")[0])
    for follower in followers:
        assert OmegaConf.select(cfg, follower) == value


@pytest.mark.parametrize("layers", [1, 3])
def test_overrides__number_of_layers_reaches_heads_and_loss_weights(layers):
    cfg = overridden(f"model.transformer.decoder.num_layers={layers}", "model.num_classes=7")
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert len(model.class_embed) == layers + 1
    assert model.class_embed[0].out_features == 7
    assert model.label_enc.num_embeddings == 7
    assert model.criterion.num_classes == 7
    suffixes = ["", "_enc", "_dn", *(f"{dn}_{i}" for i in range(layers - 1) for dn in ("", "_dn"))]
    for name, weight in (("loss_class", 1.0), ("loss_bbox", 5.0), ("loss_giou", 2.0)):
        assert {model.criterion.weight_dict[name + suffix] for suffix in suffixes} == {weight}


@pytest.mark.parametrize(
    "name", ["dino/dino_swin_tiny_224_4scale_12ep.py", "dino/dino_vitdet_base_4scale_12ep.py"]
)
def test_overrides__device_and_folder_in_derived_configs(name):
    cfg = overridden("train.device=meta", "train.output_dir=elsewhere", name=name)
    assert cfg.model.device == "meta"
    assert cfg.dataloader.evaluator.output_dir == "elsewhere"


def test_train__device_is_one_there_is():
    device = get_config("common/train.py").train.device
    assert device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_optimizer__groups_of_the_published_recipe():
    cfg = overridden()
    model = torch.nn.ModuleDict(
        {
            "backbone": torch.nn.Linear(3, 5),
            "norm": torch.nn.LayerNorm(5),
            "head": torch.nn.Linear(5, 7),
        }
    )
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    rates = {
        id(parameter): group["lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert rates[id(model["backbone"].weight)] == pytest.approx(1e-5)
    assert rates[id(model["head"].weight)] == pytest.approx(1e-4)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert optimizer.defaults["weight_decay"] == pytest.approx(1e-4)


def test_optimizer__vitdet_decays_by_depth():
    cfg = overridden(name="dino/dino_vitdet_base_4scale_12ep.py")
    factor = cfg.optimizer.params.lr_factor_func
    assert factor("backbone.net.pos_embed") == pytest.approx(0.7**13)
    assert factor("backbone.net.blocks.3.attn.qkv.weight") == pytest.approx(0.7**9)
    assert factor("transformer.level_embeds") == 1.0
