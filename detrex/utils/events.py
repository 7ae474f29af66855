"""Writers of what happens in training: a progress line, and Weights & Biases.

Both read detectron2's ``EventStorage``, which must be active (it is, inside a trainer's loop).
"""

import datetime
import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex.checkpoint.download import without_secrets
from detrex.errors import ConfigError

_AUXILIARY_LOSS = re.compile(r"_(\d+|enc|dn)$")


class ProgressWriter(EventWriter):
    """Log one readable line: iteration, time left, losses, learning rate, speed, memory.

    Of the losses only the total and the terms of the last layer are shown; those of other layers
    and of denoising queries (``loss_bbox_0``, ``loss_bbox_enc``, ``loss_bbox_dn``) are in
    ``metrics.json``.

    Args:
        max_iter: iterations of the whole run.
        window_size: losses are medians, and the speed a mean, over this many iterations.
    """

    def __init__(self, max_iter: int, window_size: int = 20) -> None:
        self.max_iter = max_iter
        self.window_size = window_size
        self._logger = logging.getLogger(__name__)
        self._last_write: tuple[int, float] | None = None

    def write(self) -> None:
        """Log the line of the current iteration; nothing once training is over."""
        storage = get_event_storage()
        if storage.iter >= self.max_iter:
            return
        done = storage.iter + 1
        seconds = self._seconds_per_iteration(storage)
        parts = [f"iter: {done}/{self.max_iter} ({100 * done // self.max_iter}%)"]
        if seconds is not None:
            eta = datetime.timedelta(seconds=int(seconds * (self.max_iter - done)))
            parts.insert(0, f"eta: {eta}")
        parts += [f"{name}: {value:.4g}" for name, value in self._shown_losses(storage).items()]
        histories = storage.histories()
        if "lr" in histories:
            parts.append(f"lr: {histories['lr'].latest():.4g}")
        if seconds is not None:
            parts.append(f"time: {seconds:.4f}")
        if "data_time" in histories:
            parts.append(f"data_time: {self._smoothed(storage, 'data_time'):.4f}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self._logger.info("  ".join(parts))

    def _seconds_per_iteration(self, storage: EventStorage) -> float | None:
        """Wall time per iteration since the last line, evaluation and checkpoints included."""
        previous, self._last_write = self._last_write, (storage.iter, time.perf_counter())
        if previous is not None and storage.iter > previous[0]:
            return (self._last_write[1] - previous[1]) / (storage.iter - previous[0])
        if "time" in storage.histories():
            return storage.history("time").global_avg()
        return None

    def _shown_losses(self, storage: EventStorage) -> dict[str, float]:
        names = [name for name in storage.histories() if "loss" in name]
        names = [name for name in names if not _AUXILIARY_LOSS.search(name)] or names
        names.sort(key=lambda name: name != "total_loss")
        return {name: self._smoothed(storage, name) for name in names}

    def _smoothed(self, storage: EventStorage, name: str) -> float:
        return storage.history(name).median(storage.count_samples(name, self.window_size))


class WandbWriter(EventWriter):
    """Send scalars, images and the config to Weights & Biases (https://wandb.ai).

    Put it before ``TensorboardXWriter`` in a list of writers: that one clears the images once
    written.

    Args:
        cfg: the config; ``train.wandb.params`` are the keywords of ``wandb.init`` (``dir``,
            ``project``, ``name``, ...).
        window_size: scalars are medians over this many iterations.
        kwargs: further keywords of ``wandb.init``.

    Raises:
        ConfigError: the package wandb is not installed.
    """

    def __init__(self, cfg: DictConfig, window_size: int = 20, **kwargs: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "train.wandb.enabled=True needs the package wandb, which is not installed: "
                "pip install wandb, or set train.wandb.enabled=False."
            ) from error
        params = {**plain(cfg.train.wandb.params), **kwargs}
        if params.get("dir"):
            Path(params["dir"]).mkdir(parents=True, exist_ok=True)
        self.window_size = window_size
        self._image = wandb.Image
        # Passwords in addresses are for their servers alone.
        config = json.loads(without_secrets(json.dumps(plain(cfg))))
        self._run = wandb.init(**{"config": config, **params})
        self._last_write = -1

    def write(self) -> None:
        """Send what is new since the last call, grouped by iteration."""
        storage = get_event_storage()
        by_iteration: dict[int, dict[str, Any]] = {}
        for name, (value, iteration) in storage.latest_with_smoothing_hint(
            self.window_size
        ).items():
            if iteration > self._last_write:
                by_iteration.setdefault(iteration, {})[name] = value
        for name, image, iteration in storage._vis_data:
            by_iteration.setdefault(iteration, {})[name] = self._image(_to_hwc(image))
        for iteration in sorted(by_iteration):
            self._run.log(by_iteration[iteration], step=iteration)
            self._last_write = max(self._last_write, iteration)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def plain(cfg: Mapping[str, Any], resolve: bool = False) -> dict[str, Any]:
    """Write down a config in plain Python containers, classes and functions by their names.

    Args:
        cfg: the config.
        resolve: whether to put values in the place of interpolations, if all of them resolve;
            otherwise they are as written.

    Returns:
        What JSON has a form for.
    """
    if not OmegaConf.is_config(cfg):
        return dict(cfg)
    try:
        return _describe(OmegaConf.to_container(cfg, resolve=resolve))
    except OmegaConfBaseException:
        if not resolve:
            raise
        return plain(cfg)


def _describe(value: Any) -> Any:
    """Replace what JSON has no form for (classes, functions) by its name."""
    if isinstance(value, Mapping):
        return {str(key): _describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return getattr(value, "__qualname__", None) or str(value)


def _to_hwc(image: Any) -> Any:
    """(C, H, W) image of the event storage, tensor or array, to an (H, W, C) array."""
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
    return array.transpose(1, 2, 0)
