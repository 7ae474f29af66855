"""Where detectors hold their backbone, and what stands around it.

::

    FPN                    model.backbone.bottom_up   in_features, top_block
    SimpleFeaturePyramid   model.backbone.net         in_feature, square_pad
    a wrapper              model.backbone.backbone    what names its maps
    C4                     model.backbone             RPN, pooler, res5 (see c4.py)
    the DETR family        model.backbone             a neck, or in_features and in_channels
    any other              the one lazy call of a detectron2 ``Backbone`` within it
"""

import inspect
from collections.abc import Callable

from detectron2.modeling.backbone import Backbone
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config.backbone_node import (
    Shapes,
    build_for,
    build_without_weights,
    published_shapes,
    says_its_maps,
    says_strides,
    stride_of_name,
)
from detrex.config.feature_consumers import Renaming, guessed_maps, rename_maps, used_maps
from detrex.config.lazy_call import parameters_of, target_name, target_of
from detrex.config.lint import lazy_calls
from detrex.config.pyramids import (
    build_around,
    put_below_fpn,
    put_below_plain_pyramid,
    put_below_wrapper,
)
from detrex.detectors import backbone_parts
from detrex.errors import ConfigError

_FITS = {
    "bottom_up": put_below_fpn,
    "net": put_below_plain_pyramid,
    "backbone": put_below_wrapper,
}
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
    parts = list(backbone_parts(model))
    if parts:
        strides = says_strides(backbone)
        levels_go_straight = "neck" in model and (strides is None or len(strides) > 1)
        return next((p for p in parts if levels_go_straight and f"{p}.net" in parts), parts[-1])
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
    old, old_inner = _old_shapes(model, outer, path)
    if "neck" in model and outer == path:
        return _before_neck(model, path, backbone, old)
    old = old or old_inner or guessed_maps(model, outer)
    used = used_maps(model, outer, old)
    if outer == path:
        wanted = sorted({old[name].stride for name in used})
        built, new = build_for(backbone, wanted, target_name(model))
        _check_padding(built)
        OmegaConf.update(model, path, backbone, merge=False)
    else:
        holder = OmegaConf.select(model, path.rpartition(".")[0])
        built = _fit_of(holder, path)(holder, backbone, old_inner)
        around = build_around(model[outer], path.partition(".")[2], built)
        # A wrapper that publishes nothing hands on the network's maps.
        new = published_shapes(around) or published_shapes(built)
    if used and new:
        rename_maps(model, outer, Renaming.by_stride({name: old[name] for name in used}, new))
    elif used:
        raise ConfigError(
            f"{target_name(backbone)} does not publish its maps (output_shape), of which "
            f"{target_name(model)} takes {', '.join(used)}: let it inherit detectron2's Backbone."
        )
    return built


def _fit_of(holder: DictConfig, path: str) -> Callable[..., nn.Module]:
    name = path.rpartition(".")[2]
    if name not in _FITS:
        raise ConfigError(
            f"{target_name(holder)} holds its backbone as {name!r}, and what depends on it is "
            f"known for {', '.join(_FITS)} alone: assign the node yourself."
        )
    return _FITS[name]


def _old_shapes(model: DictConfig, outer: str, path: str) -> tuple[Shapes | None, Shapes | None]:
    """Maps of what was there, as the detector gets them and of the network inside it.

    None for what cannot be built: a class of another project, or one that needs what is not here.
    """
    try:
        built = build_without_weights(OmegaConf.select(model, outer))
        inner = built.get_submodule(path.removeprefix(outer).lstrip("."))
        return published_shapes(built), published_shapes(inner)
    except Exception:  # constructors can fail in any way
        return None, None


def _before_neck(
    model: DictConfig, path: str, backbone: DictConfig, old: Shapes | None
) -> nn.Module | None:
    """Put a backbone before a neck, which sizes itself where what was written by hand is gone."""
    neck = model.neck
    written = [key for key in _NECK_SIZES if isinstance(neck, DictConfig) and key in neck]
    needed = [key for key in written if not _is_optional(neck, key)]
    built, shapes = None, None
    if needed or not says_its_maps(backbone):
        names = list(neck.in_features) if "in_features" in written else []
        strides = {old[n].stride if old and n in old else stride_of_name(n) for n in names}
        strides = strides or {shape.stride for shape in (old or {}).values()}
        built, shapes = build_for(backbone, sorted(filter(None, strides)), target_name(model))
    if needed and shapes is None:
        raise ConfigError(
            f"the neck {target_name(neck)} cannot be built without {needed[0]!r}, which was "
            "written for the old backbone: set model.backbone and model.neck yourself, or use "
            "detrex.modeling.neck.ChannelMapper, which sizes itself."
        )
    OmegaConf.update(model, path, backbone, merge=False)
    for key in written:
        if key not in needed:
            del neck[key]
    for key in needed:
        neck[key] = list(shapes or ()) if key == "in_features" else dict(shapes or {})
    return built


def _is_optional(call: DictConfig, key: str) -> bool:
    parameter = parameters_of(call).get(key)
    return parameter is not None and parameter.default is not inspect.Parameter.empty


def _check_padding(built: nn.Module) -> None:
    """Ask for what a detector reads when it pads images; detectron2's Swin does not tell."""
    if not isinstance(built, Backbone):
        return
    try:
        _ = built.size_divisibility, built.padding_constraints
    except AttributeError as error:
        raise ConfigError(
            f"{type(built).__name__} does not say how images are to be padded ({error}): use it "
            "below a pyramid, which does, or TimmBackbone."
        ) from error
