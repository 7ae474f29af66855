"""A config's detector, built on its device and checked, with the state of its EMA."""

import logging
from typing import Any

from detectron2.modeling.meta_arch.fcos import FCOSHead
from omegaconf import DictConfig
from torch import Tensor, nn

from detrex.config import try_get_key
from detrex.config.building import build_part
from detrex.config.frozen_weights import frozen_without_weights
from detrex.config.lazy_call import target_name
from detrex.config.pixel_statistics import pixel_statistics_warnings
from detrex.detectors import backbone_parts
from detrex.engine.distributed import resolve_device
from detrex.engine.reporting import backbone_name
from detrex.layers.deform_sampling import set_deformable_attention_kernel
from detrex.modeling import ema
from detrex.modeling.backbone.top_block import check_top_block
from detrex.quiet import IN_FULL
from detrex.utils.seeding import seed_everything

logger = logging.getLogger(__name__)


def build_model(cfg: DictConfig, seed: int) -> nn.Module:
    """Build the detector on its device, with the EMA's state on it where that is on.

    Args:
        cfg: ``model``, ``train.device``, ``train.deformable_attention_kernel`` and
            ``train.model_ema`` are read.
        seed: for the initial weights; equal on all ranks.

    Returns:
        The model, not wrapped in DDP.

    Raises:
        DetrexError: a part of it cannot be built, or FPN's top block gives other levels than FPN
            publishes.
    """
    device = resolve_device(cfg.train.device)
    if kernel := try_get_key(cfg, "train.deformable_attention_kernel", default=None):
        set_deformable_attention_kernel(kernel)
    seed_everything(seed)
    model = build_part(cfg.model, "model").to(device)
    for module in model.modules():
        if isinstance(module, FCOSHead):  # FCOS decodes boxes from it in the type that it gives
            module.register_forward_hook(_in_float32)
    logger.info("Model:\n%s", model, extra=IN_FULL)
    logger.info("%s", _in_words(cfg, model))
    for part in backbone_parts(model).values():
        check_top_block(part)
    for warning in [*pixel_statistics_warnings(cfg, model), *frozen_without_weights(cfg)]:
        logger.warning("%s", warning)
    ema.may_build_model_ema(cfg, model)
    return model


def _in_words(cfg: DictConfig, model: nn.Module) -> str:
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trained = sum(n for n, _ in counts), sum(n for n, trains in counts if trains)
    backbone = try_get_key(cfg, "model.backbone")
    over = f" over {backbone_name(backbone)}" if backbone else ""
    return (
        f"{target_name(cfg.model)}{over}: {total:,} parameters, of which {trained:,} are trained."
    )


def _in_float32(_head: nn.Module, _inputs: Any, levels: Any) -> Any:
    """Hand on a head's lists of maps without the lower precision of autocast, all else as it is."""
    if not isinstance(levels, list | tuple):
        return levels
    return tuple([map_.float() for map_ in maps] if _are_tensors(maps) else maps for maps in levels)


def _are_tensors(maps: Any) -> bool:
    return isinstance(maps, list | tuple) and all(isinstance(map_, Tensor) for map_ in maps)
