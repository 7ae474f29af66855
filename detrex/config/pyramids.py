"""Feature pyramids over another backbone: detectron2's FPN, and the one over a plain network."""

import itertools
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.modeling.backbone import FPN, SimpleFeaturePyramid
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config.backbone_node import (
    Shapes,
    build_for,
    build_without_weights,
    names_by_stride,
    published_shapes,
    says_its_maps,
    stride_of_name,
    without_references,
)
from detrex.config.building import first_sentence
from detrex.config.feature_consumers import Renaming, rename_maps
from detrex.config.lazy_call import is_call, parameters_of, target_name, target_of
from detrex.config.validation import read
from detrex.errors import ConfigError

_PYRAMID = "detrex.modeling.backbone.SimpleFeaturePyramid"
_PLAIN_STRIDE = 16


def put_below_fpn(holder: DictConfig, backbone: DictConfig, old: Shapes | None) -> nn.Module:
    """Put a backbone below a feature pyramid network.

    Args:
        holder: the pyramid's call, changed in place.
        backbone: the new backbone's call, changed where it says too much or too little of its maps.
        old: maps of the backbone that was there; None where it cannot be built.

    Returns:
        The new backbone on ``meta``.

    Raises:
        ConfigError: its maps do not suit the pyramid, or the block that adds levels.
    """
    who = target_name(holder)
    names = list(holder.get("in_features") or old or ())
    strides = [old[n].stride if old and n in old else stride_of_name(n) for n in names]
    top = _top_block(holder)
    wanted = sorted(filter(None, strides))
    if 0 < len(wanted) == len(names) and _is_named_by_index(backbone):
        backbone.out_features = [f"res{stride.bit_length() - 1}" for stride in wanted]
    built, shapes = build_for(backbone, wanted, who)
    if shapes is None:
        raise ConfigError(
            f"{target_name(backbone)} does not publish its maps (output_shape), which {who} needs: "
            "let it inherit detectron2's Backbone."
        )
    by_stride = names_by_stride(shapes)
    finest = min(by_stride)
    if finest & (finest - 1) or any(b != 2 * a for a, b in itertools.pairwise(by_stride)):
        raise ConfigError(
            f"{who} needs maps whose strides are powers of 2 and double, such as 4, 8, 16, 32, but "
            f"{target_name(backbone)} gives {_listed(shapes)}: ask for them by out_strides."
        )
    holder.bottom_up = backbone
    taken = read(holder, "in_features")
    if taken in (..., None) or list(taken) != list(by_stride.values()):
        holder.in_features = list(by_stride.values())
    if top is not None:
        _fit_top_block(holder, top.in_feature, old, built, shapes)
    return built


def _is_named_by_index(backbone: DictConfig) -> bool:
    """Whether it calls its maps p0 to p3 if nothing is said, as the pyramid calls its levels."""
    accepted = {*parameters_of(backbone)}
    can_say = {"out_indices", "out_features"} <= accepted and "out_strides" not in accepted
    return can_say and not says_its_maps(backbone)


def _top_block(holder: DictConfig) -> Any:
    node = holder.get("top_block")
    return build_without_weights(node) if is_call(node) else None


def _fit_top_block(
    holder: DictConfig, feature: str, old: Shapes | None, built: nn.Module, shapes: Shapes
) -> None:
    """Let the block that adds coarser levels take its map under the new name, at its width."""
    top, who = holder.top_block, target_name(holder.top_block)
    offered = published_shapes(built) or {}
    levels = {f"p{shape.stride.bit_length() - 1}": name for name, shape in shapes.items()}
    is_own_level = feature not in old if old else feature in levels or feature.startswith("p")
    last = list(shapes)[-1]
    new = (feature if feature in levels else list(levels)[-1]) if is_own_level else last
    if new in offered and (is_own_level or new in levels):
        cure = "ask it for res2, res3, ... by out_features"
        if isinstance(built, FPN | SimpleFeaturePyramid):
            cure = "a pyramid takes the place of another by hand, as the detector's backbone"
        raise ConfigError(
            f"{who} takes the level {new} of {target_name(holder)}, but "
            f"{target_name(holder.bottom_up)} has an output of that name: {cure}."
        )
    if new != feature and "in_feature" not in parameters_of(top):
        raise ConfigError(
            f"{who} takes {feature}, which {target_name(holder.bottom_up)} with {_listed(shapes)} "
            "does not lead to: use a backbone that gives this level."
        )
    if new != feature:
        top.in_feature = new
    if not is_own_level and top.get("in_channels") != shapes[last].channels:
        top.in_channels = shapes[last].channels


def put_below_plain_pyramid(
    holder: DictConfig, backbone: DictConfig, old: Shapes | None
) -> nn.Module:
    """Put a backbone below a simple feature pyramid, which makes all levels of one map.

    Args:
        holder: the pyramid's call, changed in place.
        backbone: as for `put_below_fpn`.
        old: as for `put_below_fpn`.

    Returns:
        The new backbone on ``meta``.

    Raises:
        ConfigError: it has no map of the stride that the pyramid takes.
    """
    who, feature = target_name(holder), holder.get("in_feature")
    stride = old[feature].stride if old and feature in old else _PLAIN_STRIDE
    built, shapes = build_for(backbone, [stride], who)
    name = names_by_stride(shapes or {}).get(stride)
    if name is None:
        raise ConfigError(
            f"{who} makes its levels of a map of stride {stride}, but {target_name(backbone)} "
            f"gives {_listed(shapes or {}) or 'none that it publishes'}: ask for it by out_strides."
        )
    holder.net = backbone
    if read(holder, "in_feature") != name:
        holder.in_feature = name
    padding = getattr(built, "padding_constraints", {})
    if "square_size" in padding and holder.get("square_pad"):
        holder.square_pad = padding["square_size"]
    if target_of(holder) is SimpleFeaturePyramid:
        holder["_target_"] = _PYRAMID  # detectron2's asks for no padding but the square
    return built


def put_below_wrapper(holder: DictConfig, backbone: DictConfig, old: Shapes | None) -> nn.Module:
    """Put a backbone into what holds it as its ``backbone``, such as one with position embeddings.

    Args:
        holder: the wrapper's call, changed in place; it takes the maps that the old one gave.
        backbone: as for `put_below_fpn`.
        old: as for `put_below_fpn`.

    Returns:
        The new backbone on ``meta``.

    Raises:
        ConfigError: it has none of the maps that the wrapper takes.
    """
    wanted = sorted({shape.stride for shape in (old or {}).values()})
    built, shapes = build_for(backbone, wanted, target_name(holder))
    holder.backbone = backbone
    if old and shapes:
        rename_maps(holder, "backbone", Renaming.by_stride(old, shapes))
    return built


def build_around(holder: DictConfig, inner: str, built: nn.Module) -> nn.Module:
    """Build what stands around a backbone that is built already.

    Args:
        holder: the call of the pyramid, or of what holds one.
        inner: dotted name of the backbone in it.
        built: the backbone on ``meta``.

    Returns:
        The pyramid on ``meta``.

    Raises:
        ConfigError: its constructor refuses the backbone.
    """
    holder = without_references(holder)  # some may lead into the backbone's call
    OmegaConf.update(holder, inner, built, merge=False)
    try:
        with torch.device("meta"):
            return instantiate(holder)
    except Exception as error:  # constructors can fail in any way
        raise ConfigError(
            f"{target_name(holder)} cannot be built over {type(built).__name__}: "
            f"{first_sentence(error)}"
        ) from error


def _listed(shapes: Shapes) -> str:
    return ", ".join(f"{name} (stride {shape.stride})" for name, shape in shapes.items())
