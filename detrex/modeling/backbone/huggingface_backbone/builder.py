"""transformers' networks of images, built without weights."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.backbone.inspection.blocks import block_names
from detrex.modeling.backbone.inspection.findings import NetworkKey
from detrex.modeling.backbone.inspection.meta_run import on_meta_or_cpu
from detrex.modeling.backbone.training.norms import Norm, chosen_norm, norm_kind
from detrex.modeling.backbone.wrapper.library_builder import build_with, plain

from .naming import NO_PART, NamedNetwork, import_transformers, made_config, quiet
from .network import is_backbone

# Forwards take one of these names for the resampling of their position tables.
FREE_SIZE = "interpolate_pos_encoding"
# What builds a network, and is no part of its config.
_OF_BUILDER = ("attn_implementation",)
# Levels over maps are computed here, and maps are wanted as such and whole.
_FIXED = {"add_fpn": False, "reshape_hidden_states": True, "mask_ratio": 0.0}
# Their classes for backbones refuse to give the embedded patches.
_WITHOUT_STEM = ("maskformer-swin",)


@dataclass(frozen=True)
class Recipe:
    """How a network of transformers is built.

    Attributes:
        who: what to call it.
        kind: its class.
        description: of its config, with what the user has changed.
        keywords: what the user has changed, for messages.
        options: for its builder.
    """

    who: str
    kind: Any
    description: Mapping[str, Any]
    keywords: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def key(self) -> NetworkKey | None:
        """Under what to keep what is found of it; see `NetworkKey.of`."""
        return NetworkKey.of(
            self.kind, self.kind.__name__, {**self.description, "options": dict(self.options)}
        )

    @property
    def places(self) -> Sequence[int] | None:
        """Places of the maps that a class for backbones has; None for any other class."""
        if not is_backbone(self.kind):
            return None
        config = self.config()
        return range(int(config.model_type in _WITHOUT_STEM), len(config.stage_names))

    def config(self, **changes: Any) -> Any:
        """Make its config, with some values changed."""
        return made_config(self.who, {**self.description, **changes})

    def full_config(self, in_channels: int | None) -> Any:
        """Make its config with every map, for images of a number of channels if one is given."""
        plain_config = self.config()
        changes: dict[str, Any] = {}
        if in_channels is not None and hasattr(plain_config, "num_channels"):
            changes = _for_channels(plain_config, in_channels)
        if self.places is not None:
            changes["out_indices"] = list(self.places)
        return self.config(**changes)

    def build(self, places: Sequence[int] | None = None) -> nn.Module:
        """Build it.

        Args:
            places: stages that a class for backbones gives, rising; None for all.

        Raises:
            TypeError, BackboneError: it cannot be built so.
        """

        def create(**_: Any) -> nn.Module:
            chosen = {}
            if self.places is not None:
                chosen["out_indices"] = list(self.places if places is None else places)
            with quiet():
                network = builder(self.config(**chosen), **self.options)
            _settle_hooks(network)
            _settle_windows(network)
            return network

        auto = import_transformers()
        builder = (auto.AutoBackbone if is_backbone(self.kind) else auto.AutoModel).from_config
        try:
            return build_with(self.who, create, self.keywords, self.kind)
        except ImportError as error:
            reason = " ".join(str(error).split())[:160]
            raise BackboneError(
                f"{self.who} needs a package that is not installed ({reason}): "
                "install it, or choose another network."
            ) from error


def recipe_of(named: NamedNetwork, keywords: Mapping[str, Any], in_channels: int) -> Recipe:
    """Settle how a network is built.

    Args:
        named: the network.
        keywords: changes of its config, and options of transformers' builder.
        in_channels: channels of the image.

    Raises:
        TypeError: a keyword that is in no config of its type.
        BackboneError: it maps no images to features, or not of so many channels.
    """
    keywords = {name: plain(value) for name, value in keywords.items()}
    options = {name: keywords[name] for name in _OF_BUILDER if name in keywords}
    changes = {name: value for name, value in keywords.items() if name not in options}
    config = made_config(named.who, named.description)
    known = {*config.to_dict(), *vars(config), *getattr(config, "attribute_map", {})}
    for name in changes:
        if name == "model_type" or name in NO_PART:
            raise TypeError(f"{name!r} is no part of {named.who}: leave it out.")
        if name not in known or name.startswith("_"):
            raise TypeError(
                f"the config of {named.who} has no {name[:80]!r}.{did_you_mean(name, known)}"
            )
    if changes.get("num_channels", in_channels) != in_channels:
        raise BackboneError(
            f"got num_channels={changes['num_channels']!r}: the channels of the image are called "
            "in_channels here, in every wrapper."
        )
    fixed = {name: value for name, value in _FIXED.items() if name in known}
    if in_channels != getattr(config, "num_channels", 3):
        if "num_channels" not in known:
            raise BackboneError(
                f"{named.who} is built for images of three channels, got in_channels={in_channels}:"
                " leave it out, or choose another network."
            )
        changed = made_config(named.who, {**named.description, **changes})
        fixed |= _for_channels(changed, in_channels)
    description = {**named.description, **changes, **fixed}
    return Recipe(named.who, _class_of(named, config), description, changes, options)


def _for_channels(config: Any, in_channels: int) -> dict[str, Any]:
    """What of a config says how many channels an image has."""
    stem = getattr(config, "stem_channels", None)  # a list from the image's on, in some types
    listed = {"stem_channels": [in_channels, *stem[1:]]} if isinstance(stem, list | tuple) else {}
    return {"num_channels": in_channels, **listed}


def _class_of(named: NamedNetwork, config: Any) -> Any:
    """The class for backbones of a config's type, else the one without a head."""
    from transformers.models.auto import modeling_auto

    mappings = (modeling_auto.MODEL_FOR_BACKBONE_MAPPING, modeling_auto.MODEL_MAPPING)
    found = (mapping[type(config)] for mapping in mappings if type(config) in mapping)
    kind: Any = next(found, None)
    kind = kind[0] if isinstance(kind, tuple) else kind
    if kind is None or kind.main_input_name != "pixel_values":
        raise BackboneError(
            f"{named.who}, of type {config.model_type!r}, is no network of images in transformers: "
            "choose one of AutoBackbone, or a vision transformer of AutoModel."
        )
    needed = [p.name for p in _parameters(kind).values() if p.default is p.empty]
    if more := [name for name in needed if name not in ("self", "pixel_values", "args", "kwargs")]:
        raise BackboneError(
            f"{named.who} takes no images alone, but {', '.join(more)[:120]} beside them: choose "
            "one of AutoBackbone, or a vision transformer of AutoModel."
        )
    return kind


def norm_of(norm_layer: Any, frozen_norm: bool, recipe: Recipe) -> Norm:
    """Find out which norm a user means.

    Args:
        norm_layer: a class or a name of detectron2, or None for the network's own.
        frozen_norm: freeze the network's batch norms.
        recipe: the network.

    Raises:
        TypeError: see `chosen_norm`.
        BackboneError: a norm that the network would have to be built with.
    """

    def native(device: str) -> str:
        with torch.device(device):
            return norm_kind(recipe.build())

    norm = chosen_norm(norm_layer, frozen_norm, "torchvision", lambda: on_meta_or_cpu(native))
    if norm.keywords:
        raise BackboneError(
            f"norm_layer={norm.asked}: a network of transformers is built with its own norms, of "
            "which batch norms can be frozen ('FrozenBN') or synchronised ('SyncBN')."
        )
    return norm


def forward_keywords(kind: Any) -> dict[str, Any]:
    """What a network's forward is always given beside images."""
    return {"noise": None} if "noise" in _parameters(kind) else {}


def takes_free_sizes(kind: Any) -> bool:
    """Whether a network's forward can be asked to resample its position tables."""
    parameters = _parameters(kind)
    return FREE_SIZE in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@functools.cache
def _parameters(kind: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind.forward).parameters


def _settle_hooks(network: Any) -> None:
    """Let nothing listen within blocks, where it would hear checkpointed ones twice.

    Some versions of transformers take hidden states and attentions out of a network by hooks.
    """
    try:
        from transformers.utils.output_capturing import maybe_install_capturing_hooks
    except ImportError:
        return
    maybe_install_capturing_hooks(network)
    for name in block_names(network):
        block = network.get_submodule(name)
        for module in block.modules():
            if module is not block:
                module._forward_hooks.clear()


def _settle_windows(network: nn.Module) -> None:
    """Let attention in windows depend on the image at hand alone.

    Blocks of some types shrink their windows for a small map, for good, and then do not fit their
    table of positions any more. Here a map smaller than a window is filled up.
    """
    blocks: list[Any] = [m for m in network.modules() if hasattr(m, "set_shift_and_window_size")]
    for block in blocks:
        settled = functools.partial(_set_shift, block, block.shift_size)
        block.set_shift_and_window_size = settled


def _set_shift(block: Any, shift: int, map_size: Sequence[int]) -> None:
    """Shift windows but where one of them spans the map, as transformers does."""
    block.shift_size = 0 if min(map_size) <= block.window_size else shift
