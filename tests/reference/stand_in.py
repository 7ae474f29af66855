"""A detector, a data set and an evaluator that take milliseconds, for tests of the engine.

They follow detectron2's conventions: a list of dicts in, a dict of losses or a list of
``{"instances": ...}`` out.
"""

import json

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import get_default_optimizer_params
from detectron2.structures import Instances
from detectron2.utils import comm
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.data.loader import build_train_loader

IMAGE_SIZE = 7


class StandIn(nn.Module):
    """Predicts one number per image; dropout makes its losses depend on the random state."""

    def __init__(self, width: int = 5, dropout: float = 0.5, nan_at: int = -1):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        self.nan_at = nan_at
        self.calls = 0

    def forward(self, batch: list[dict]):
        images = torch.stack([sample["image"] for sample in batch]).to(self.head.weight.device)
        features = self.backbone(images).mean((2, 3))
        scores = self.head(self.dropout(features)).squeeze(1)
        if not self.training:
            return [{"instances": self._instances(score)} for score in scores]
        truth = torch.tensor([sample["truth"] for sample in batch], device=scores.device)
        losses = {
            "loss_class": (scores - truth).square().mean(),
            "loss_bbox": 0.1 * scores.abs().mean(),
        }
        if self.calls == self.nan_at:
            losses["loss_bbox"] = losses["loss_bbox"] * float("nan")
        self.calls += 1
        return losses

    @staticmethod
    def _instances(score: torch.Tensor) -> Instances:
        return Instances((IMAGE_SIZE, IMAGE_SIZE), scores=score[None].float())


class MeanScore(DatasetEvaluator):
    """The mean score over the data set, gathered from all ranks."""

    def reset(self):
        self.scores: dict[int, float] = {}

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            self.scores[sample["image_id"]] = output["instances"].scores.item()

    def evaluate(self):
        shares = comm.gather(self.scores)
        if not comm.is_main_process():
            return None
        scores = {k: v for share in shares for k, v in share.items()}
        mean = sum(scores[k] for k in sorted(scores)) / len(scores)
        return {"bbox": {"AP": mean, "images": len(scores)}}


def make_dataset(num_images: int = 12) -> list[dict]:
    return [
        {"image_id": i, "width": IMAGE_SIZE, "height": IMAGE_SIZE, "truth": i / num_images}
        for i in range(num_images)
    ]


def add_image(sample: dict) -> dict:
    """The image of a sample, and noise as an augmentation."""
    image = np.random.default_rng(sample["image_id"]).random((3, IMAGE_SIZE, IMAGE_SIZE))
    image = image + 0.1 * np.random.standard_normal(image.shape)
    sample["image"] = torch.from_numpy(image.astype("float32"))
    return sample


def still_image(sample: dict) -> dict:
    """The image of a sample without augmentation."""
    image = np.random.default_rng(sample["image_id"]).random((3, IMAGE_SIZE, IMAGE_SIZE))
    sample["image"] = torch.from_numpy(image.astype("float32"))
    return sample


def evaluation_batches(num_images: int = 5) -> list[list[dict]]:
    """The share of this rank of a test set, one image per batch."""
    images = [still_image(sample) for sample in make_dataset(num_images)]
    return [[image] for image in images[comm.get_rank() :: comm.get_world_size()]]


def stand_in_config(output_dir: str, **train) -> DictConfig:
    """A config with every part that the engine reads; ``train`` overrides ``train.*``."""
    from detrex.config import get_config

    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.train = get_config("common/train.py").train
    cfg.model = L(StandIn)()
    cfg.optimizer = L(torch.optim.AdamW)(
        params=L(get_default_optimizer_params)(base_lr="${..lr}"), lr=0.01, weight_decay=1e-4
    )
    cfg.lr_multiplier = L(CosineParamScheduler)(start_value=1.0, end_value=0.1)
    cfg.dataloader = dict(
        train=L(build_train_loader)(dataset=make_dataset(), mapper=add_image, total_batch_size=4),
        test=L(evaluation_batches)(),
        evaluator=L(MeanScore)(),
    )
    defaults = dict(
        output_dir=output_dir, device="cpu", max_iter=6, seed=3, log_period=1, eval_period=0
    )
    cfg.train = OmegaConf.merge(
        cfg.train, defaults, {"checkpointer": {"period": 2, "max_to_keep": 2}}, train
    )
    return cfg


def read_weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def read_losses(folder) -> dict[int, float]:
    """The total losses in ``metrics.json``, by iteration."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}
