"""Another backbone for a detector's config, with what belonged to the old one taken out."""

import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig

from detrex.errors import ConfigError

_SIZES = ("input_shapes", "in_features")
_STATISTICS = ("pixel_mean", "pixel_std")


def swap_backbone(model: DictConfig, backbone: DictConfig) -> DictConfig:
    """Give a detector's config another backbone.

    What was written by hand for the old one goes: the neck's `input_shapes` and `in_features`,
    so that the neck sizes itself, and the detector's `pixel_mean` and `pixel_std`, which become
    ``"auto"`` where the detector takes that. Set any of them afterwards to have it by hand again.

    Args:
        model: a lazy call of a detector that has a ``backbone`` and perhaps a ``neck``; changed in
            place.
        backbone: a lazy call of the new one.

    Returns:
        `model`.

    Raises:
        ConfigError: `model` is no such config, `backbone` is no lazy call, or the neck cannot be
            built without its sizes; `model` is then unchanged.

    Example:
        >>> from detectron2.config import LazyCall as L
        >>> from detrex.config import get_config
        >>> from detrex.modeling.backbone import TimmBackbone
        >>> model = get_config("dino/models/dino_r50.py").model
        >>> new = L(TimmBackbone)(model_name="convnext_tiny", out_strides=(8, 16, 32))
        >>> swap_backbone(model, new).backbone.model_name
        'convnext_tiny'
    """
    _check_model(model)
    _check_call("backbone", backbone, "L(TimmBackbone)(model_name='resnet50')")
    neck = model.get("neck")
    sizes = [key for key in _SIZES if isinstance(neck, DictConfig) and key in neck]
    for key in sizes:
        if not _is_optional(neck, key):
            raise ConfigError(
                f"the neck {_name(neck)} cannot be built without {key!r}, which was written for "
                "the old backbone: set model.backbone and model.neck yourself, or use "
                "detrex.modeling.neck.ChannelMapper, which sizes itself."
            )
    model.backbone = backbone
    for key in sizes:
        del neck[key]
    for key in _STATISTICS:
        # The annotation says whether the detector asks its backbone.
        if "'auto'" in str(_parameters(model).get(key)):
            model[key] = "auto"
    return model


def _check_model(model: Any) -> None:
    if isinstance(model, Mapping | DictConfig) and "_target_" not in model and "model" in model:
        raise ConfigError(
            "swap_backbone expects the detector's config, got a config that holds one: pass "
            "cfg.model."
        )
    _check_call("model", model, 'get_config("dino/models/dino_r50.py").model')
    if "backbone" not in model:
        keys = ", ".join(str(key) for key in model if key != "_target_")
        raise ConfigError(
            f"swap_backbone expects a detector with a 'backbone', but {_name(model)} has {keys}."
        )


def _check_call(what: str, node: Any, example: str) -> None:
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(
            f"swap_backbone expects a lazy call as its {what}, such as {example}, got "
            f"{type(node).__name__}."
        )


def _parameters(call: DictConfig) -> Mapping[str, inspect.Parameter]:
    target = call["_target_"]
    return inspect.signature(locate(target) if isinstance(target, str) else target).parameters


def _is_optional(call: DictConfig, key: str) -> bool:
    parameter = _parameters(call).get(key)
    return parameter is not None and parameter.default is not inspect.Parameter.empty


def _name(call: DictConfig) -> str:
    target = call["_target_"]
    return str(getattr(target, "__qualname__", target))
