"""The checkpointer of a run, and what is said of the weights that it starts from."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.checkpoint.reading.state_dict import tensors_of
from detrex.checkpoint.report import LoadReport
from detrex.config.pixel_statistics import takes_auto, unlike_weights
from detrex.detectors import published_statistics
from detrex.modeling import ema
from detrex.modeling.backbone.weights.origins import find_origin

logger = logging.getLogger(__name__)


def build_checkpointer(cfg: DictConfig, model: nn.Module, **parts: Any) -> DetectionCheckpointer:
    """Build what saves and loads a run.

    Args:
        cfg: ``train.output_dir`` and ``train.model_ema`` are read.
        model: the model, not wrapped in DDP.
        parts: what else is saved, by name.

    Returns:
        The checkpointer of the model, its EMA where that is on, and the parts.
    """
    parts |= ema.may_get_ema_checkpointer(cfg, model)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, **parts)
    checkpointer.on_weights = functools.partial(_warn_of_origin, cfg, checkpointer.model)
    return checkpointer


def _warn_of_origin(
    cfg: DictConfig, model: nn.Module, content: Mapping[str, Any], report: LoadReport
) -> None:
    """Warn where weights were trained on other images or by other layers than the detector's."""
    file = report.source
    origin = find_origin(content, tensors_of(content, file))
    if origin is None and report.part and not takes_auto(cfg.model):
        for warning in unlike_weights(cfg, published_statistics(model.backbone)):
            logger.warning("train.init_checkpoint %s: %s", file, warning)
    if origin is not None and (differs := origin.differences_of_detector(model)):
        logger.warning("train.init_checkpoint %s was %s: %s", file, origin.name, differs)
