"""What happens around the steps of a run: schedule, EMA, checkpoints, evaluation, logs."""

import os
from collections.abc import Callable, Iterable

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.config import try_get_key
from detrex.config.building import build_part
from detrex.engine.evaluation import Metrics
from detrex.engine.trainer import Trainer
from detrex.modeling import ema
from detrex.utils.events import ProgressWriter, WandbWriter


def build_hooks(
    cfg: DictConfig,
    model: nn.Module,
    trainer: Trainer,
    checkpointer: DetectionCheckpointer,
    evaluate: Callable[[], Metrics],
) -> Iterable[HookBase | None]:
    """Build the hooks of a run, in their order: a checkpoint holds all that precedes it.

    Args:
        cfg: ``lr_multiplier`` and ``train`` are read.
        model: the model, not wrapped in DDP.
        trainer: what they are for.
        checkpointer: saves the run, on the main process.
        evaluate: gives the metrics of the model as it is.
    """
    main = comm.is_main_process()
    log_period = int(try_get_key(cfg, "train.log_period", default=20))
    period = int(try_get_key(cfg, "train.eval_period", default=0))
    return [
        hooks.IterationTimer(),
        ema.EMAHook(cfg, model) if try_get_key(cfg, "train.model_ema.enabled") else None,
        hooks.LRScheduler(trainer.optimizer, build_part(cfg.lr_multiplier, "lr_multiplier")),
        hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
        hooks.EvalHook(period, evaluate),
        hooks.PeriodicWriter(_build_writers(cfg, log_period), log_period) if main else None,
    ]


def _build_writers(cfg: DictConfig, window_size: int) -> list[EventWriter]:
    """The writers; TensorBoard's comes last, since it clears the images that it has written."""
    output_dir = str(cfg.train.output_dir)
    os.makedirs(output_dir, exist_ok=True)
    writers: list[EventWriter] = [
        ProgressWriter(int(cfg.train.max_iter), window_size),
        JSONWriter(os.path.join(output_dir, "metrics.json"), window_size),
    ]
    if try_get_key(cfg, "train.wandb.enabled", default=False):
        writers.append(WandbWriter(cfg, window_size))
    return [*writers, TensorboardXWriter(output_dir, window_size)]
