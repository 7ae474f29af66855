"""Where detectors hold their backbone, and what stands around it.

::

    FPN                    model.backbone.bottom_up   in_features, top_block
    SimpleFeaturePyramid   model.backbone.net         in_feature, square_pad
    C4                     model.backbone             RPN, pooler, res5 (see c4.py)
    the DETR family        model.backbone             a neck, or in_features and in_channels
    any other              the one lazy call of a detectron2 ``Backbone`` within it
"""

from collections.abc import Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.modeling.backbone import Backbone, SimpleFeaturePyramid
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config.backbone_node import (
    Shapes,
    build_for,
    build_without_weights,
    is_call,
    names_by_stride,
    parameters_of,
    published_shapes,
    says_strides,
    stride_of_name,
    target_name,
    target_of,
)
from detrex.config.building import first_line
from detrex.config.feature_consumers import Renaming, rename_maps, used_maps
from detrex.config.lint import lazy_calls
from detrex.errors import ConfigError

_INNER = ("bottom_up", "net")
_PYRAMID = "detrex.modeling.backbone.SimpleFeaturePyramid"
_NECK_SIZES = ("input_shapes", "in_features")


def find_backbone(model: DictConfig, backbone: DictConfig) -> str:
    """Find the part of a detector's config that another backbone is to replace.

    Args:
        model: the detector's config.
        backbone: the new one. A neck that takes several maps gets them from it directly, not
            through a pyramid that was made for a plain network.

    Returns:
        The part's dotted name.

    Raises:
        ConfigError: there is none, or it cannot be told from others.
    """
    if "backbone" in model:
        path, node = "backbone", model.backbone
        while is_call(node) and (inner := next((k for k in _INNER if is_call(node.get(k))), None)):
            strides = says_strides(backbone)
            if inner == "net" and "neck" in model and (strides is None or len(strides) > 1):
                break
            path, node = f"{path}.{inner}", node[inner]
        return path
    found = [path for path, call in lazy_calls(model) if path and _makes_backbone(call)]
    inner = [path for path in found if not any(other.startswith(f"{path}.") for other in found)]
    if len(inner) == 1 and "[" not in inner[0]:
        return inner[0]
    has = ", ".join(str(key) for key in model if key != "_target_")
    several = f" among {', '.join(inner)}" if inner else ""
    raise ConfigError(
        f"swap_backbone expects a detector with a 'backbone', but {target_name(model)} has {has}, "
        f"and no one lazy call of a detectron2 Backbone{several}: assign the node yourself."
    )


def _makes_backbone(call: DictConfig) -> bool:
    try:
        target = target_of(call)
    except Exception:  # what cannot be imported is told when it is built
        return False
    return isinstance(target, type) and issubclass(target, Backbone)


def put_backbone(model: DictConfig, path: str, backbone: DictConfig) -> nn.Module | None:
    """Put a backbone into a detector's config, and set what depends on it.

    Args:
        model: the detector's config, changed in place.
        path: where the old backbone stands, as `find_backbone` gave it.
        backbone: the new one, changed where it says too much or too little of its maps.

    Returns:
        The new backbone on ``meta``, None where nothing depends on it.

    Raises:
        ConfigError: the detector cannot take it.
    """
    outer = path.partition(".")[0] if path.startswith("backbone") else path
    old_inner = _old_shapes(OmegaConf.select(model, path))
    if "neck" in model and outer == path:
        return _before_neck(model, path, backbone, old_inner)
    old = old_inner if outer == path else _old_shapes(model[outer])
    used = used_maps(model, outer, old or {})
    if outer == path:
        wanted = sorted({old[name].stride for name in used}) if old else []
        built, shapes = build_for(backbone, wanted, target_name(model))
        OmegaConf.update(model, path, backbone, merge=False)
        new = shapes
    else:
        holder = OmegaConf.select(model, path.rpartition(".")[0])
        fit = _into_pyramid if "net" in holder and path.endswith(".net") else _into_fpn
        built = fit(holder, backbone, old_inner)
        new = published_shapes(_rebuilt(model[outer], outer, built, path))
    if used and old and new:
        rename_maps(model, outer, Renaming.by_stride({name: old[name] for name in used}, new))
    elif used and old:
        raise ConfigError(
            f"{target_name(backbone)} does not publish its maps (output_shape), of which "
            f"{target_name(model)} takes {', '.join(used)}: let it inherit detectron2's Backbone."
        )
    return built


def _old_shapes(node: Any) -> Shapes | None:
    """Maps of the backbone that was there; None where it cannot be built."""
    if not is_call(node):
        return None
    try:
        return published_shapes(build_without_weights(node))
    except Exception:  # a class of another project, or one that needs what is not here
        return None
