"""Two processes that train by FSDP2, and by DDP: ``torchrun -m tests.reference.two_sharded DIR``.

Each rank writes what it saw into the folder.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BasicBlock
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import nn

from detrex.engine import Trainer, do_train, launch
from detrex.engine.fsdp import is_sharded, spread_over_ranks, whole_copy
from detrex.engine.optimizer import build_optimizer
from detrex.layers import PositionEmbeddingSine
from detrex.modeling import ema
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.training.layer_decay import get_layer_decay_params
from detrex.modeling.dino import DINO, DINOCriterion
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.neck import ChannelMapper
from tests.reference.stand_in import StandIn, stand_in_config
from tests.reference.tiny_dino import BASE_WEIGHTS, random_inputs, tiny_transformer

STEPS = 10
STRIDES = (8, 16, 32)

Backbone = Callable[[], nn.Module]


def vit(**options: Any) -> nn.Module:
    return TimmBackbone("test_vit", out_strides=STRIDES, out_channels=16, **options)


BACKBONES: dict[str, Backbone] = {
    "vit": lambda: vit(freeze_at=2, grad_checkpointing=True),
    "convnext": lambda: TimmBackbone("test_convnext", out_strides=STRIDES, freeze_at=1),
    "frozen norms": lambda: TimmBackbone(
        "test_resnet", out_strides=STRIDES, norm_layer=FrozenBatchNorm2d, freeze_at=2
    ),
    "graph": lambda: TorchvisionBackbone(
        "resnet18", out_strides=STRIDES, norm_layer=FrozenBatchNorm2d
    ),
    "graph, checkpointed": lambda: TorchvisionBackbone(
        "resnet18", out_strides=STRIDES, grad_checkpointing=True
    ),
}
ADAMW, SGD = torch.optim.AdamW, torch.optim.SGD
# Backbone, keywords of the trainer, whether layers compute activations again, and the optimizer.
Case = tuple[str, dict[str, Any], bool, Any]
CLIP = {"max_norm": 0.1}
CASES: dict[str, Case] = {
    "convnext": ("convnext", {"accumulate_steps": 2, "clip_grad_params": CLIP}, True, ADAMW),
    "vit": ("vit", {"accumulate_steps": 2, "clip_grad_params": CLIP}, True, ADAMW),
    "1-norm": ("convnext", {"clip_grad_params": {"max_norm": 1, "norm_type": 1}}, False, SGD),
    "greatest": (
        "convnext",
        {"clip_grad_params": {"max_norm": 0.01, "norm_type": float("inf")}},
        False,
        ADAMW,
    ),
    "frozen norms": ("frozen norms", {}, False, ADAMW),
    "graph": ("graph", {"clip_grad_params": CLIP}, False, ADAMW),
    "graph, checkpointed": ("graph, checkpointed", {"accumulate_steps": 2}, False, SGD),
    "bfloat16": ("convnext", {"amp": True, "amp_dtype": torch.bfloat16}, False, ADAMW),
    "float16": ("convnext", {"amp": True, "clip_grad_params": CLIP}, False, ADAMW),
    "float16 without clipping": ("convnext", {"amp": True}, False, ADAMW),
}


def detector(backbone: str, use_checkpoint: bool = False) -> DINO:
    """The same weights in every process; denoising queries without noise."""
    torch.manual_seed(0)
    return DINO(
        backbone=BACKBONES[backbone](),
        position_embedding=PositionEmbeddingSine(16, normalize=True, offset=-0.5),
        neck=ChannelMapper(
            out_channels=32, kernel_size=1, norm_layer=nn.GroupNorm(4, 32), num_outs=4
        ),
        transformer=tiny_transformer(use_checkpoint=use_checkpoint),
        criterion=DINOCriterion(
            num_classes=5,
            matcher=HungarianMatcher(2.0, 5.0, 2.0),
            weight_dict=dict(BASE_WEIGHTS),
        ),
        embed_dim=32,
        num_classes=5,
        num_queries=11,
        dn_number=6,
        label_noise_ratio=0.0,
        box_noise_scale=0.0,
        device="cpu",
    )


def config(sharded: bool, kind: Any = ADAMW) -> Any:
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.train = {
        "model_ema": {"enabled": True, "decay": 0.9, "device": ""},
        "fsdp": {"enabled": sharded},
        "ddp": {"broadcast_buffers": False},
    }
    cfg.optimizer = L(kind)(
        params=L(get_layer_decay_params)(base_lr="${..lr}", decay_rate=0.8, weight_decay=0.01),
        lr=1e-3,
    )
    if kind is SGD:
        cfg.optimizer.momentum = 0.9
    else:  # what divides rounding by rounding else, where a gradient is zero
        cfg.optimizer.eps = 1e-3
    return cfg


def batches() -> Any:
    seed = comm.get_rank()
    while True:
        seed += 2
        yield random_inputs([(40, 56), (48, 32)], [3, 2], seed=seed)


def train(case: Case, sharded: bool) -> dict[str, Any]:
    """`STEPS` steps; losses, whole weights and averages at the end, and detections."""
    backbone, options, use_checkpoint, kind = case
    cfg = config(sharded, kind)
    model = detector(backbone, use_checkpoint)
    ema.may_build_model_ema(cfg, model)
    optimizer = build_optimizer(cfg, model)
    trainer = Trainer(
        spread_over_ranks(cfg, model, optimizer), batches(), optimizer, seed=5, **options
    )
    if trainer.grad_scaler.is_enabled():  # the first scales do not overflow, and later ones do
        trainer.grad_scaler = torch.amp.GradScaler("cpu", 8.0, growth_factor=64, growth_interval=3)
    trainer.register_hooks([ema.EMAHook(cfg, model)])
    trainer.train(0, STEPS)
    averages = ema.get_model_ema_state(model).state_dict()
    if sharded:
        assert is_sharded(trainer.model)
        whole, averaged = whole_copy(model), whole_copy(model, averages)
    else:
        whole, averaged = model, ema.get_model_ema_state(model).get_ema_model(model)
    found = whole.eval()(random_inputs([(40, 56)]))[0]["instances"]
    return {
        "losses": [value for value, _ in trainer.storage.history("total_loss").values()],
        "weights": {name: value.detach() for name, value in whole.state_dict().items()},
        "averages": {name: value.detach() for name, value in averaged.state_dict().items()},
        "scores": found.scores.detach(),
        "scale": trainer.grad_scaler.get_scale(),
    }


class Blocks(StandIn):
    """Has a backbone of blocks, of which the first is frozen."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 5, 3),
            nn.Sequential(*(BasicBlock(5, 5, norm="BN") for _ in range(3))),
        )
        self.backbone[1][0].freeze()


def run_config(folder: Path, name: str, **options: Any) -> Any:
    """Of a run with everything that FSDP has to do with."""
    clip = {"enabled": True, "params": {"max_norm": 0.5}}
    cfg = stand_in_config(f"{folder}/{name}", clip_grad=clip, accumulate_steps=2, **options)
    cfg.train.model_ema = {"enabled": True, "decay": 0.5, "device": ""}
    cfg.train.checkpointer.period = 4
    cfg.model = L(Blocks)()
    return cfg


def run(folder: Path, name: str, resume: bool = False, **options: Any) -> Any:
    """A run of the engine, by FSDP or by DDP."""
    cfg = run_config(folder, name, max_iter=12, **options)
    return do_train(argparse.Namespace(resume=resume), cfg)


def runs(folder: Path) -> None:
    """Runs from the beginning, and one that goes on from a run of one process in ``one``."""
    inference = {"enabled": True, "channels_last": False}
    metrics = {
        "fsdp": run(folder, "fsdp", fsdp={"enabled": True}, inference=inference),
        "ddp": run(folder, "ddp", inference=inference),
    }
    for name, sharded in (("from one, fsdp", True), ("from one, ddp", False)):
        if comm.is_main_process():
            shutil.copytree(folder / "one", folder / name)
        comm.synchronize()
        metrics[name] = run(folder, name, resume=True, fsdp={"enabled": sharded})
    torch.save(metrics, folder / f"metrics{comm.get_rank()}.pth")


def main(folder: str, what: str) -> None:
    if what == "runs":
        runs(Path(folder))
        return
    for name, case in CASES.items():
        seen = {"fsdp": train(case, True), "ddp": train(case, False)}
        torch.save(seen, Path(folder) / f"{name}{comm.get_rank()}.pth")


if __name__ == "__main__":
    launch(main, args=tuple(sys.argv[1:3]), timeout=timedelta(seconds=60), device="cpu")
