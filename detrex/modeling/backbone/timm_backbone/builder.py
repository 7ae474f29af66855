"""timm's networks by name, checked and built without weights."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.backbone.wrapper.library_builder import build_with

from .weights import tags

# Keywords that reach no constructor of timm's: those of TimmBackbone, and of timm's builder.
_OTHER_KEYWORDS = (
    *("model_name", "pretrained", "checkpoint_path", "in_channels", "out_indices", "out_strides"),
    *("out_features", "out_channels", "weights", "frozen_norm", "freeze_at", "grad_checkpointing"),
    *("features_only", "norm_layer"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"),
)


def import_timm() -> ModuleType:
    """Import timm, or say how to get it."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "TimmBackbone needs timm, which is not installed: pip install timm"
        ) from error
    return timm


def check_name(name: str, features_only: bool = True) -> None:
    """Check that timm has a network, and weights of the tag in its name.

    Args:
        name: architecture with or without a tag; one with a scheme (``hf-hub:``) is left to timm.
        features_only: must be True.

    Raises:
        TypeError: the name is no text.
        BackboneError: it has not; near names are suggested.
    """
    timm = import_timm()
    if not isinstance(name, str):
        raise TypeError(f"model_name must be a name such as 'resnet50', got {name!r}.")
    if not features_only:
        raise BackboneError(
            "TimmBackbone gives feature maps, got features_only=False: leave it out, or use "
            f"timm.create_model({name!r}) for a classifier."
        )
    if ":" in name:
        return
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise BackboneError(
            f"timm has no model named {name!r}.{hint or ' See timm.list_models().'}"
        )
    architecture, _, tag = name.partition(".")
    if tag and tag not in (known := tags(name)):
        raise BackboneError(
            f"{architecture} has no weights tagged {tag!r}.{did_you_mean(tag, known)} "
            f"It has: {', '.join(known) or 'none'}."
        )


def create_network(
    name: str, keywords: Mapping[str, Any], indices: Sequence[int] | None = None
) -> nn.Module:
    """Build a feature network without weights.

    Args:
        name: as in `check_name`.
        keywords: for ``timm.create_model``.
        indices: features that its forward returns, rising; timm's choice when None.

    Returns:
        timm's network, which maps images to a list of features.

    Raises:
        TypeError: a keyword that the network does not take.
        BackboneError: it cannot be built so, or does not say which features it has.
    """
    timm = import_timm()
    chosen = {} if indices is None else {"out_indices": tuple(indices)}
    create = functools.partial(timm.create_model, name, features_only=True, **chosen)
    home: Callable[..., Any] = (
        timm.model_entrypoint(name) if timm.is_model(name) else timm.create_model
    )
    who = f"timm's {name!r}"
    try:
        return build_with(who, create, keywords, home, _OTHER_KEYWORDS)
    except BackboneError as error:
        if isinstance(error.__cause__, KeyError) and "'architecture'" in str(error):
            raise BackboneError(
                f"{who} has a config.json without timm's 'architecture': if transformers saved it, "
                f"use HuggingFaceBackbone({name.partition(':')[2]!r})."
            ) from error
        if not isinstance(error.__cause__, AttributeError) or "feature_info" not in str(error):
            raise
        raise BackboneError(
            f"{who} does not say which features it has (no feature_info): choose another model."
        ) from error
