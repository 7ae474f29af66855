"""Statistics and channel order of images, settled in a config before anything of it is built.

DINO asks its backbone when it is built; detectron2's detectors take numbers, and their images are
what the mappers read. ``pixel_mean="auto"`` works for these too once it is resolved here.
"""

import dataclasses
import inspect
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig
from torch import nn

from detrex.checkpoint.download import is_address
from detrex.config.backbone_node import WEIGHTS
from detrex.config.building import build_part
from detrex.config.lazy_call import is_call, parameters_of, target_name
from detrex.config.lint import lazy_calls
from detrex.config.validation import peek, read, read_all
from detrex.detectors import backbone_parts, published_statistics
from detrex.errors import ConfigError

logger = logging.getLogger(__name__)

STATISTICS = ("pixel_mean", "pixel_std")
_FORMATS = ("input_format", "image_format", "img_format")
_COLOURS = ("RGB", "BGR")


class _Order(NamedTuple):
    """A keyword of a lazy call that says in which order the channels of images come."""

    path: str
    call: DictConfig
    key: str
    order: Any


def resolve_pixel_statistics(cfg: DictConfig) -> list[str]:
    """Write what the backbone's weights expect where a detector's config says ``"auto"``.

    The images then come in the backbone's order too: ``input_format`` of the detector and
    ``image_format`` of the mappers are set to it, and numbers written by hand for the other of the
    two follow. Detectors that take ``"auto"`` themselves, such as DINO, are left alone.

    Args:
        cfg: a run's config, or its ``model`` alone; changed in place.

    Returns:
        The changes, such as ``"model.input_format: BGR -> RGB"``, which are logged.

    Raises:
        ConfigError: another word than ``"auto"``, or a backbone that does not publish its
            ``preprocess``.

    Example:
        >>> from detrex.config import get_detectron2_config
        >>> from detectron2.config import LazyCall as L
        >>> from detrex.modeling.backbone import TimmBackbone
        >>> model = get_detectron2_config("common/models/fcos.py").model
        >>> model.backbone.bottom_up = L(TimmBackbone)(
        ...     model_name="resnet18", out_features=["res3", "res4", "res5"]
        ... )
        >>> model.pixel_mean = model.pixel_std = "auto"
        >>> resolve_pixel_statistics(model)[0]
        'model.pixel_mean: auto -> [123.675, 116.28, 103.53]'
    """
    model = _model_of(cfg)
    auto = [name for name in STATISTICS if _is_auto(model, name)]
    if not auto or takes_auto(model):
        return []
    statistics = backbone_statistics(model)
    if statistics is None:
        last = [*backbone_parts(model).values()][-1:]
        who = (
            f"its backbone {target_name(last[0])}" if last else "the detector, without a backbone,"
        )
        raise ConfigError(
            f'model.{auto[0]} is "auto", and {who} does not say which images its weights expect '
            "(preprocess): write the numbers, or use a backbone of detrex.modeling.backbone."
        )
    changes = [_set(model, f"model.{name}", name, getattr(statistics, name)) for name in auto]
    if len(statistics.pixel_mean) == 3:
        by_hand = [name for name in STATISTICS if name not in auto]
        changes += _turn_channels(cfg, statistics.channel_order, by_hand)
    logger.info("Images as the backbone's weights expect them:\n%s", "\n".join(changes))
    return changes


def pixel_statistics_warnings(cfg: Any, detector: nn.Module | None = None) -> list[str]:
    """Compare how a config's images are read and normalised with what its backbone's weights want.

    Args:
        cfg: a run's config, or its ``model`` alone.
        detector: the detector where it is built already; else its backbone is built on ``meta``.

    Returns:
        A sentence where images come in several orders, and one where the backbone gets weights that
        were trained on other images. With ``train.init_checkpoint`` the latter is left out, for a
        detector's checkpoint decides for itself.

    Raises:
        ConfigError: the backbone cannot be built.
    """
    model = _model_of(cfg)
    if not isinstance(model, DictConfig):
        return []
    orders = _colours(cfg)
    found = []
    if len(set(orders.values())) > 1:
        listed = ", ".join(f"{path}={order}" for path, order in orders.items())
        found.append(
            f"the channels of images come in several orders ({listed}): write one of them."
        )
    is_told = detector is not None and takes_auto(model)  # by DINO, when it is built
    if peek(cfg, "train.init_checkpoint") or is_told or not _has_weights(model, detector):
        return found
    if detector is None:
        return found + unlike_weights(cfg, backbone_statistics(model))
    return found + unlike_weights(cfg, published_statistics(getattr(detector, "backbone", None)))


def unlike_weights(cfg: DictConfig, wanted: Any) -> list[str]:
    """Compare a config's images with those that the weights of its backbone expect.

    Args:
        cfg: a run's config, or its ``model`` alone.
        wanted: as from `backbone_statistics`, or None.

    Returns:
        A sentence where they differ; empty too where numbers are not written by hand.
    """
    model = _model_of(cfg)
    mean, std = (_numbers(read(model, name)) for name in STATISTICS)
    order = next(reversed(_colours(cfg).values()), getattr(wanted, "channel_order", None))
    if wanted is None or not mean or not std or _are_alike(mean, std, order, wanted):
        return []
    return [
        f"images are normalised by pixel_mean {mean} and pixel_std {std} in {order}, and the "
        f"weights of {target_name([*backbone_parts(model).values()][-1])} expect "
        f"{list(wanted.pixel_mean)} and {list(wanted.pixel_std)} in {wanted.channel_order}: "
        'write pixel_mean="auto" and pixel_std="auto" to have these.'
    ]


def backbone_statistics(model: DictConfig) -> Any:
    """Find the images that a backbone's weights expect, from its config.

    Args:
        model: the lazy call of a detector. Its backbone network is built on the device ``meta``.

    Returns:
        What the backbone publishes as ``preprocess``: ``pixel_mean``, ``pixel_std`` and
        ``channel_order``; None where it says nothing.

    Raises:
        ConfigError: the backbone cannot be built.
    """
    for path, call in reversed(backbone_parts(model).items()):
        statistics = getattr(build_part(call, f"model.{path}", on_meta=True), "preprocess", None)
        if statistics is not None:
            return statistics
    return None


def takes_auto(model: DictConfig) -> bool:
    """Whether a detector settles ``"auto"`` itself, with its backbone: its annotation says so.

    Args:
        model: the lazy call of a detector.
    """
    return "'auto'" in str(_parameters(model).get("pixel_mean"))


def _model_of(cfg: Any) -> Any:
    return cfg if is_call(cfg) else peek(cfg, "model")


def _turn_channels(cfg: DictConfig, order: str, by_hand: list[str]) -> list[str]:
    """Let images come in an order, and the numbers that were written for the one before."""
    model, before, changes = _model_of(cfg), {*_colours(cfg).values()}, []
    for place in _channel_orders(cfg):
        # What refers to another keyword has followed it by now.
        now = read(place.call, place.key)
        if now in (*_COLOURS, ...) and now != order:
            changes.append(_set(place.call, place.path, place.key, order))
    for name in by_hand:
        numbers = _numbers(read(model, name))[::-1]
        if before and order not in before and numbers != numbers[::-1]:
            changes.append(_set(model, f"model.{name}", name, numbers))
    return changes


def _is_auto(model: Any, name: str) -> bool:
    value = read(model, name) if isinstance(model, DictConfig) else ...
    if isinstance(value, str) and value != "auto":
        raise ConfigError(f'model.{name} must be "auto" or one value per channel, got {value!r}.')
    return value == "auto"


def _numbers(value: Any) -> list[float]:
    values = read_all(value) if isinstance(value, ListConfig) else value
    is_row = isinstance(values, list | tuple)
    return [*values] if is_row and all(isinstance(v, int | float) for v in values) else []


def _has_weights(model: DictConfig, detector: nn.Module | None) -> bool:
    """Whether a backbone gets weights of which it is known what images they expect."""
    calls = [*backbone_parts(model).values()][-1:]
    asked = [value for call in calls for key in WEIGHTS if (value := read(call, key))]
    # What is still to be fetched can tell no more than the network's name.
    is_unknown = detector is None and any(map(_is_still_to_be_fetched, asked))
    return any(value is not ... for value in asked) and not is_unknown


def _is_still_to_be_fetched(weights: Any) -> bool:
    return isinstance(weights, DictConfig) or (isinstance(weights, str) and is_address(weights))


def _are_alike(mean: list[float], std: list[float], order: Any, wanted: Any) -> bool:
    if not len(mean) == len(std) == len(wanted.pixel_mean):
        return False
    return dataclasses.replace(
        wanted, pixel_mean=mean, pixel_std=std, channel_order=order
    ).is_close_to(wanted)


def _channel_orders(cfg: Any) -> list[_Order]:
    """The keywords that say how channels come, the detector's first, those of training next."""
    calls: list[tuple[str, Any, tuple[str, ...]]] = [("model", _model_of(cfg), _FORMATS[:1])]
    for part in ("dataloader.train", "dataloader.test"):
        calls += [(path, call, _FORMATS[1:]) for path, call in lazy_calls(peek(cfg, part), part)]
    return [
        _Order(f"{path}.{key}", call, key, read(call, key) if key in call else None)
        for path, call, keys in calls
        for key in keys
        if key in call or key in _parameters(call)
    ]


def _colours(cfg: Any) -> dict[str, str]:
    return {place.path: place.order for place in _channel_orders(cfg) if place.order in _COLOURS}


def _parameters(call: DictConfig) -> Mapping[str, inspect.Parameter]:
    try:
        return parameters_of(call)
    except (ImportError, TypeError, ValueError):  # told by check_targets, or some builtin
        return {}


def _set(call: DictConfig, path: str, key: str, value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    before = read(call, key) if key in call else "its default"
    call[key] = value
    return f"{path}: {before} -> {value}"
