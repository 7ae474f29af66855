"""A config that needs neither the data nor the weights of the machine that it was trained on."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from detectron2.data import transforms as T
from omegaconf import DictConfig

from detrex.checkpoint.download import is_address, shown
from detrex.config import resolve_pixel_statistics, try_get_key
from detrex.config.backbone_node import expected_images, without_weights
from detrex.config.building import build_part
from detrex.config.lazy_call import is_call, target_name
from detrex.config.lint import lazy_calls
from detrex.config.pixel_statistics import STATISTICS, takes_auto
from detrex.detectors import backbone_parts
from detrex.errors import ConfigError
from detrex.modeling.backbone.huggingface_backbone.naming import named_network

logger = logging.getLogger(__name__)

MIN_SIZE, MAX_SIZE = 800, 1333
"""The sides of pictures, where the config's test mapper does not say."""

_MAPPER = "dataloader.test.mapper"
_FORMATS = ("img_format", "image_format")


def make_portable(cfg: DictConfig) -> None:
    """Let a config describe a detector whose weights all come from its own checkpoint.

    Args:
        cfg: changed in place: ``"auto"`` statistics become numbers, and nothing of ``model`` is
            left to be fetched or read.
    """
    if not is_call(cfg.model):
        return
    resolve_pixel_statistics(cfg)
    if takes_auto(cfg.model) and any(cfg.model.get(key) == "auto" for key in STATISTICS):
        _settle_statistics(cfg)
    cfg.model, _ = without_weights(cfg.model, "model")
    _describe_networks(cfg.model)


def _describe_networks(model: DictConfig) -> None:
    """Write what networks of transformers are in the place of where that is said."""
    for _, call in list(lazy_calls(model, "model")):
        name = call.get("model_name")
        if target_name(call) != "HuggingFaceBackbone" or not isinstance(name, str | Path):
            continue
        named = named_network(name)
        text = json.dumps(named.description)
        if named.home is None or '"_target_"' in text or "${" in text:  # a config would act on it
            continue
        origin = {"_name_or_path": str(name)} if is_address(named.home) else {}
        call.model_name = {**json.loads(text), **origin}


def _settle_statistics(cfg: DictConfig) -> None:
    """Write what a detector would take from its backbone: without weights it might take another."""
    model, calls = cfg.model, list(backbone_parts(cfg.model).values())
    statistics = expected_images(calls[-1]) if calls and is_call(calls[-1]) else None
    if statistics is None:
        return
    weights = calls[-1].get("weights")
    if (
        isinstance(weights, str)
        and "/" in weights
        and not (is_address(weights) or os.path.exists(weights.partition("#")[0]))
    ):
        logger.warning(
            'model.pixel_mean is "auto", and the weights that the backbone began with, %s, are '
            "not here to tell: %s is taken; if it was another, set model.pixel_mean and pixel_std.",
            *(weights, [round(value, 2) for value in statistics.pixel_mean]),
        )
    turned = len(statistics.pixel_mean) == 3 and statistics.channel_order != image_format(cfg)
    for key in STATISTICS:
        by_hand = model.get(key)
        if by_hand == "auto":
            model[key] = list(getattr(statistics, key))
        elif turned and by_hand is not None:
            model[key] = list(by_hand)[::-1]
    if turned:
        model.input_format = statistics.channel_order
        mapper = try_get_key(cfg, _MAPPER)
        for key in _FORMATS:
            if isinstance(mapper, DictConfig) and key in mapper:
                mapper[key] = statistics.channel_order


def image_format(cfg: DictConfig) -> str:
    """Find the order of channels that a config's detector takes.

    Args:
        cfg: ``model.input_format`` is read, then the test mapper's ``img_format`` or
            ``image_format``.

    Returns:
        ``"RGB"``, which is the default, ``"BGR"``, or ``"L"`` for one channel.

    Raises:
        ConfigError: the config says another.
    """
    keys = ("model.input_format", *(f"{_MAPPER}.{key}" for key in _FORMATS))
    said = {key: order for key in keys if (order := try_get_key(cfg, key)) is not None}
    for key, order in said.items():
        if order not in ("RGB", "BGR", "L"):
            raise ConfigError(
                f"{key}={order!r:.40} is no order that pictures can be given in: expected RGB, "
                "BGR or L."
            )
    if len(set(said.values())) > 1:
        orders = ", ".join(f"{key}={order}" for key, order in said.items())
        logger.warning(
            "The config names several orders of channels (%s), of which the first is taken: name "
            "that of training by model.input_format.",
            orders,
        )
    return next(iter(said.values()), "RGB")


def refuse_secrets(value: Any, where: str) -> None:
    """Refuse addresses with a user, a password or a query in what is to be shared.

    Args:
        value: a part of a resolved config.
        where: its key.

    Raises:
        ConfigError: there is one; the message does not hold what is secret in it.
    """
    if isinstance(value, dict | list | tuple):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            refuse_secrets(each, f"{where}.{key}")
    elif isinstance(value, str) and "://" in value and shown(value) != value:
        raise ConfigError(
            f"{where}={shown(value)} is an address with a user, a password or a query, which may "
            "be secret: leave it out of the config."
        )


def evaluation_augmentation(cfg: DictConfig) -> list[T.Augmentation]:
    """Build what a config's evaluation does to a picture before the detector gets it.

    Args:
        cfg: the ``augmentation`` or ``augmentations`` of ``dataloader.test.mapper`` are read.

    Returns:
        The augmentations in their order; a resize to `MIN_SIZE` and `MAX_SIZE` where the config
        names none.
    """
    for key in ("augmentation", "augmentations"):
        calls: Any = try_get_key(cfg, f"{_MAPPER}.{key}")
        if calls is not None:
            return [
                build_part(call, f"{_MAPPER}.{key}[{index}]") if is_call(call) else call
                for index, call in enumerate(calls)
            ]
    return [T.ResizeShortestEdge(MIN_SIZE, MAX_SIZE)]


def sides_of(augmentation: list[T.Augmentation]) -> tuple[int, int]:
    """Read the shorter side and the most of the longer side that pictures are resized to.

    Args:
        augmentation: what is done to a picture.

    Returns:
        Both in pixels; zeros where pictures stay as they are.
    """
    for each in augmentation:
        if isinstance(each, T.ResizeShortestEdge):
            edge: Any = each.short_edge_length
            return int(edge if isinstance(edge, int) else max(edge)), int(each.max_size)
    return 0, 0
