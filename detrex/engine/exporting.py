"""A config's model with its weights, as it is wanted outside a run."""

import logging
import os
from collections.abc import Sequence

from torch import nn

from detrex.checkpoint import load_init_checkpoint, read_checkpoint
from detrex.checkpoint.download import shown
from detrex.config import load_config, require_keys, resolve_pixel_statistics, try_get_key
from detrex.config.building import build_part
from detrex.data.class_names import choose_metadata
from detrex.engine.overrides import apply_overrides

logger = logging.getLogger(__name__)


def build_for_export(
    config: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    weights: str | None = None,
    trusted: Sequence[str] = (),
) -> tuple[nn.Module, list[str]]:
    """Build a config's model and load its weights.

    Args:
        config: a LazyConfig file.
        overrides: ``key=value``, as for training.
        weights: a checkpoint; by default ``train.init_checkpoint``. Without either the weights are
            random, or those that the backbone loads itself, with a warning.
        trusted: packages that YAML and overrides may call beside those of `detrex.config.trust`.

    Returns:
        The model on the processor, in evaluation mode, and the names of its classes, empty where
        nothing tells them.

    Raises:
        DetrexError: the config, the overrides or the weights cannot be used.
    """
    cfg = apply_overrides(load_config(config, trusted), overrides, trusted)
    require_keys(cfg, "model")
    path = weights or try_get_key(cfg, "train.init_checkpoint", default="")
    checkpoint = read_checkpoint(path) if path else {}
    names = choose_metadata(cfg, checkpoint, option="dataloader.train.dataset.names")
    resolve_pixel_statistics(cfg)
    model = build_part(cfg.model, "model").cpu().eval()
    if path:
        load_init_checkpoint(model, checkpoint, name=shown(str(path)))
    else:
        logger.warning("No checkpoint is given: the detector's weights are random.")
    return model, list(names.get("thing_classes", []))
