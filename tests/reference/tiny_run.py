"""The folder of a run that trained a small DINO on shapes, as a run leaves it, in a second."""

import json
from pathlib import Path

import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig
from torch import nn

from detrex.config import get_config
from detrex.data.demo.shapes import write_shapes_dataset

CLASSES = ["circle", "square", "triangle"]
SIZE = (64, 80)


def tiny_config(folder: Path) -> DictConfig:
    """A narrow DINO of the package's layers; pictures stay small."""
    cfg = get_config("dino/demo_shapes.py")
    cfg.dataloader.folder = str(folder / "data")
    cfg.train.device, cfg.train.output_dir = "cpu", str(folder / "run")
    for stage in cfg.model.backbone.stages:
        stage.num_blocks, stage.stride_per_block = 1, stage.stride_per_block[:1]
    cfg.model.embed_dim, cfg.model.position_embedding.num_pos_feats = 32, 16
    cfg.model.num_queries = cfg.model.select_box_nums_for_evaluation = 20
    for part in (cfg.model.transformer.encoder, cfg.model.transformer.decoder):
        part.num_layers, part.feedforward_dim = 1, 32
    resize = L(T.ResizeShortestEdge)(short_edge_length=72, max_size=120)
    cfg.dataloader.test.mapper.augmentation = [resize]
    cfg.dataloader.test.num_workers = 0
    return cfg


def build(cfg: DictConfig, seed: int = 0) -> nn.Module:
    """The config's detector with heads whose scores and boxes differ from query to query."""
    torch.manual_seed(seed)
    model: nn.Module = instantiate(cfg.model).eval()
    with torch.no_grad():
        for parameter in [*model.class_embed.parameters(), *model.bbox_embed.parameters()]:
            parameter.normal_(0, 0.5)
    return model


def write_run(folder: Path, pictures: int = 3) -> DictConfig:
    """Write ``data`` and ``run`` into a folder.

    Returns:
        The run's config.
    """
    for seed, side in enumerate(("train", "val")):
        write_shapes_dataset(folder / "data" / side, pictures, SIZE, seed)
    cfg = tiny_config(folder)
    run = folder / "run"
    run.mkdir()
    LazyConfig.save(cfg, str(run / "config.yaml"))
    save(build(cfg), run / "model_final.pth")
    (run / "last_checkpoint").write_text("model_final.pth")
    return cfg


def save(model: nn.Module, file: Path, **more: object) -> None:
    """Write a checkpoint as a run does."""
    content = {"class_names": CLASSES, "model": model.state_dict(), "iteration": 9}
    torch.save({**content, **more}, file)


def images_of(folder: Path, side: str = "val") -> list[tuple[int, Path]]:
    """The ids and files of a data set's pictures."""
    content = json.loads((folder / "data" / side / "annotations.json").read_text())
    root = folder / "data" / side / "images"
    return [(image["id"], root / image["file_name"]) for image in content["images"]]
