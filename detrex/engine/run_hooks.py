"""What happens around the steps of a run: schedule, EMA, checkpoints, evaluation, logs."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from omegaconf import DictConfig
from torch import nn

from detrex.config import try_get_key
from detrex.config.building import build_part
from detrex.engine.evaluation import Metrics
from detrex.engine.records import Evaluate, Records, TensorboardWriter
from detrex.engine.run_folder.identity import METRICS
from detrex.engine.stopping import StopWhenAsked
from detrex.engine.trainer import Trainer
from detrex.modeling import ema
from detrex.utils.events import ProgressWriter, WandbWriter
from detrex.utils.metrics_file import MetricsWriter


def build_hooks(
    cfg: DictConfig,
    model: nn.Module,
    trainer: Trainer,
    evaluate: Callable[[], Metrics],
    stop: StopWhenAsked,
) -> Iterable[HookBase | None]:
    """Build the hooks of a run, in their order: a checkpoint holds all that precedes it.

    Args:
        cfg: ``lr_multiplier`` and ``train`` are read.
        model: the model, not wrapped in DDP.
        trainer: what they are for.
        evaluate: gives the metrics of the model as it is.
        stop: ends the run where it is asked to, and knows the hook that writes checkpoints.
    """
    log_period = int(try_get_key(cfg, "train.log_period", default=20))
    evaluation = Evaluate(int(try_get_key(cfg, "train.eval_period", default=0)), evaluate)
    writers = _build_writers(cfg, log_period) if comm.is_main_process() else []
    return [
        hooks.IterationTimer(),
        ema.EMAHook(cfg, model) if try_get_key(cfg, "train.model_ema.enabled") else None,
        hooks.LRScheduler(trainer.optimizer, build_part(cfg.lr_multiplier, "lr_multiplier")),
        stop.checkpoints,
        stop,
        evaluation,
        Records(
            writers,
            log_period,
            evaluation,
            Path(cfg.train.output_dir, METRICS),
            try_get_key(cfg, "dataloader.evaluator") is not None,
        ),
    ]


def _build_writers(cfg: DictConfig, window_size: int) -> list[EventWriter]:
    """The writers; TensorBoard's comes after others of images, since it clears them.

    The metrics come last: where they have a line, all others have it too.
    """
    output_dir = str(cfg.train.output_dir)
    writers: list[EventWriter] = [ProgressWriter(int(cfg.train.max_iter), window_size)]
    if try_get_key(cfg, "train.wandb.enabled", default=False):
        writers.append(WandbWriter(cfg, window_size))
    metrics = MetricsWriter(os.path.join(output_dir, METRICS), window_size)
    return [*writers, TensorboardWriter(output_dir, window_size), metrics]
