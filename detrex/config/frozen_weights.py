"""Stages of a backbone that a config freezes although nothing gives them weights."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from detrex.config.backbone_node import WEIGHTS
from detrex.config.validation import peek, read
from detrex.detectors import backbone_parts

_FREEZE = ("freeze_at", "frozen_stages", "freeze_patch_embed")


def frozen_without_weights(cfg: Any) -> Iterator[str]:
    """Find what stays at random weights for a whole run.

    Args:
        cfg: a run's config.

    Yields:
        One sentence for each part of the backbone that freezes, where neither it nor
        ``train.init_checkpoint`` says where weights come from.
    """
    model = peek(cfg, "model")
    if not isinstance(model, DictConfig) or peek(cfg, "train.init_checkpoint"):
        return
    for path, call in backbone_parts(model).items():
        if not isinstance(call, DictConfig) or any(
            key in call and read(call, key) for key in WEIGHTS
        ):
            continue
        for key in _FREEZE:
            value = read(call, key) if key in call else 0
            if isinstance(value, int) and value > 0:
                yield (
                    f"model.{path}.{key}={value} freezes stages with random weights: name their "
                    f"weights by train.init_checkpoint or, where it takes them, model.{path}."
                    f"weights, or set {key} to {type(value)(0)}."
                )
