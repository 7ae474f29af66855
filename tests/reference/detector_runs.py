"""Runs of `tiny_detectors` on shapes, in one process or in two.

``torchrun --nproc-per-node=2 -m tests.reference.detector_runs DIR`` writes what each rank saw.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn

from detrex.config import get_config
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.data.preparation import prepared_data
from detrex.engine import Trainer, do_test, launch
from detrex.engine.distributed import wrap_ddp
from detrex.engine.evaluation import build_loader
from tests.reference.panoptic_shapes import register_panoptic_shapes
from tests.reference.shape_oracle import ShapeOracle
from tests.reference.stand_in import stand_in_config
from tests.reference.tiny_detectors import NUM_KEYPOINTS, tiny_detector

SIZE = (64, 80)
TWO_RANKS = ("mask_rcnn_fpn", "keypoint_rcnn_fpn", "panoptic_fpn", "fcos")
EMPTY = ((False, True), (True, True))


def write_data(folder: Path) -> None:
    for seed, (side, count) in enumerate((("train", 4), ("val", 3))):
        write_shapes_dataset(folder / side, count, SIZE, seed, 3, (0.3, 0.6))


def config(name: str, folder: Path, **train: Any) -> DictConfig:
    """Train and evaluate a tiny detector on what `write_data` wrote.

    Args:
        name: one of `DETECTORS`.
        folder: that of the data; the run's is in it.
        train: overrides of ``train``.
    """
    cfg = stand_in_config(f"{folder}/{name}", max_iter=2, **train)
    cfg.model = tiny_detector(name)
    cfg.dataloader = get_config("common/data/shapes.py").dataloader
    cfg.dataloader.folder = str(folder)
    cfg.dataloader.train.total_batch_size = 2
    mapper, evaluator = cfg.dataloader.train.mapper, cfg.dataloader.evaluator
    mapper.mask_on = not name.startswith(("fcos", "retinanet", "keypoint"))
    mapper.keypoint_on = "keypoint" in name
    evaluator.kpt_oks_sigmas = [0.05] * NUM_KEYPOINTS
    if name == "panoptic_fpn":
        for side in ("train", "test"):
            cfg.dataloader[side].dataset.names = L(register)(side=side, folder=str(folder))
        evaluated = "${...test.dataset.names}"
        cfg.dataloader.evaluator = [
            L(COCOEvaluator)(dataset_name=evaluated, use_fast_impl=False),
            L(SemSegEvaluator)(dataset_name=evaluated),
        ]
    return cfg


def register(side: str, folder: str) -> str:
    """Register panoptic shapes, the first time that a folder asks for them."""
    from detectron2.data import DatasetCatalog

    name = f"panoptic_{side}_{folder}"
    if name not in DatasetCatalog.list():
        root = Path(folder) / f"panoptic_{side}{comm.get_rank()}"
        register_panoptic_shapes(name, root, 3, SIZE, 5, 3, (0.3, 0.6))
    return name


def with_detectron2s_mapper(cfg: DictConfig) -> DictConfig:
    """Exchange the mappers for detectron2's own."""
    for side in ("train", "test"):
        own = cfg.dataloader[side].mapper
        cfg.dataloader[side].mapper = L(DatasetMapper)(
            is_train=side == "train",
            augmentations=own.augmentation,
            image_format="BGR",
            use_instance_mask=own.mask_on,
            use_keypoint=own.keypoint_on,
            keypoint_hflip_indices=own.keypoint_hflip_indices,
        )
    return cfg


def without_objects(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same images, of which nothing is known but that they are empty."""
    bare = []
    for sample in batch:
        truth = sample["instances"][:0]
        empty = Instances(truth.image_size, gt_boxes=truth.gt_boxes, gt_classes=truth.gt_classes)
        bare.append({**sample, "instances": empty})
    return bare


class Endless(list):
    """The same batch again and again."""

    def __iter__(self):
        while True:
            yield self[0]


def train_two(name: str, folder: Path, empty: tuple[bool, bool]) -> dict[str, Any]:
    """Two steps of a detector whose ranks have images with or without objects.

    Returns:
        The losses of each step, means over the ranks, and the weights afterwards.
    """
    cfg = config(name, folder)
    with prepared_data(cfg, train=True):
        batch = next(iter(build_loader(cfg, "dataloader.train")))
    torch.manual_seed(0)
    model: nn.Module = instantiate(cfg.model)
    if empty[comm.get_rank()]:
        batch = without_objects(batch)
    trainer = Trainer(
        wrap_ddp(model, torch.device("cpu"), {}),
        Endless([batch]),
        torch.optim.SGD(model.parameters(), lr=1e-4),
        seed=3,
    )
    trainer.train(0, 2)
    histories = trainer.storage.histories()
    losses = {k: [v for v, _ in h.values()] for k, h in histories.items() if "loss" in k}
    weights = {k: p.detach().clone() for k, p in model.named_parameters()}
    return {"losses": losses, "weights": weights}


def evaluate_two(name: str, folder: Path) -> dict[str, Any]:
    """Evaluate the truth about three images, of which one rank has one more than the other."""
    cfg = config(name, folder)
    model = ShapeOracle(f"{folder}/val/annotations.json")
    with EventStorage(0):
        return do_test(cfg, model)


def main(folder: str) -> None:
    seen: dict[str, Any] = {}
    for name in TWO_RANKS:
        for empty in EMPTY:
            seen[f"{name} {empty}"] = train_two(name, Path(folder), empty)
    seen["metrics"] = evaluate_two("mask_rcnn_fpn", Path(folder))
    torch.save(seen, Path(folder) / f"seen{comm.get_rank()}.pth")


if __name__ == "__main__":
    launch(main, args=(sys.argv[1],), timeout=timedelta(seconds=60), device="cpu")
