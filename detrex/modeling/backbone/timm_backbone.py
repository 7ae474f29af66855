"""Any network of timm (github.com/huggingface/pytorch-image-models) as a backbone."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import BackboneError, did_you_mean

from .building import build_network
from .features import Feature, FeatureTable, map_layout, resolve_indices
from .freezing import KeepsFrozen, check_freeze_at, plan_freezing
from .frozen_norm import freeze_norms, frozen_norm_class
from .probing import Look, look_at, unused_parameters

logger = logging.getLogger(__name__)

DEFAULT_OUT_INDICES = (0, 1, 2, 3)

# Keywords that reach no constructor of timm's: those of this class, and of timm's builder.
_OTHER_KEYWORDS = (
    *("model_name", "pretrained", "checkpoint_path", "in_channels", "out_indices", "freeze_at"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"),
)


class TimmBackbone(KeepsFrozen, Backbone):
    """A network of timm, tapped at feature indices, as a detectron2 backbone.

    Output ``p{i}`` is timm's feature ``i``, so its stride depends on the network: index 1 has
    stride 4 in a ResNet (whose index 0 is the stem) and 8 in a Swin; `output_shape` tells. The
    output dict is in the order of `out_indices`, with the names as given (``p-1`` for index -1).
    Every output is an NCHW map, also where timm gives NHWC. Parameters that no output depends on,
    which a few networks have, are kept for the sake of their checkpoints but need no gradient.

    Args:
        model_name: architecture of timm with or without a tag, such as ``"resnet50.a1_in1k"``.
        features_only: always True; there for configs of the original detrex.
        pretrained: let timm fetch its weights; not when `checkpoint_path` is given.
        checkpoint_path: local weights file (``.pth``, ``.safetensors``, ...) for the feature
            network; a classifier in it is passed over.
        in_channels: channels of the image.
        out_indices: which features, in any order; negative ones count from the end. Left out, it is
            the first four, or the end of each quarter of the blocks where all strides are equal.
        norm_layer: norm to build with. A frozen batch norm (detectron2's, torchvision's, or
            ``"FrozenBN"``) means that the network is built with its own batch norms, gets its
            weights, and has them frozen exactly.
        freeze_at: number of stages to freeze as in `ResNet`: 1 is the stem, 2 the stem and the
            stage of stride 4, ... 5 everything; a network of one stride counts quarters of its
            blocks.
        **kwargs: passed to ``timm.create_model``, such as ``img_size`` or ``drop_path_rate``.

    Raises:
        ImportError: timm is not installed.
        TypeError: an argument of the wrong type, or a keyword that the network does not take.
        BackboneError: an unknown name or index, or weights that cannot be fetched.
        CheckpointError: too little of `checkpoint_path` fits the network.

    Example:
        >>> backbone = TimmBackbone("resnet50", out_indices=(2, 3, 4), norm_layer=FrozenBatchNorm2d)
        >>> backbone.output_shape()["p2"].stride
        8
    """

    def __init__(
        self,
        model_name: str,
        features_only: bool = True,
        pretrained: bool = False,
        checkpoint_path: str | Path = "",
        in_channels: int = 3,
        out_indices: Sequence[int] = DEFAULT_OUT_INDICES,
        norm_layer: Any = None,
        *,
        freeze_at: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        timm = _import_timm()
        _check_arguments(timm, model_name, features_only, pretrained)
        check_freeze_at(freeze_at)
        frozen_class = frozen_norm_class(norm_layer)
        keywords = {"in_chans": in_channels, **kwargs}
        if norm_layer is not None and frozen_class is None:
            keywords["norm_layer"] = norm_layer

        taps = _feature_info(timm, model_name, keywords)
        strides = [tap["reduction"] for tap in taps]
        # Identity tells the default, which adapts, from an equal tuple of the user, which does not.
        given = _default_indices(strides) if out_indices is DEFAULT_OUT_INDICES else out_indices
        indices = resolve_indices(given, strides, model_name)
        self.out_indices = tuple(given)

        fetch = pretrained and not checkpoint_path
        self.timm_model = _create(timm, model_name, keywords, sorted(indices), fetch)
        if checkpoint_path:
            from detrex.checkpoint.matching import load_weights

            load_weights(self.timm_model, checkpoint_path)
        if frozen_class is not None:
            freeze_norms(self.timm_model, frozen_class, model_name)

        look = look_at(self.timm_model, _image_sizes(self.timm_model, kwargs), in_channels)
        # timm gives features by rising index, whatever the order in which they were asked for.
        position = [sorted(indices).index(index) for index in indices]
        names = [f"p{index}" for index in self.out_indices]
        self.features = _feature_table(look, names, indices, position, strides)
        self._positions = dict(zip(names, position, strict=True))
        self._publish()
        self._freeze(look, freeze_at)
        logger.info("TimmBackbone(%r): %s", model_name, self.features)

    def _publish(self) -> None:
        self._out_features = self.features.names
        self._out_feature_channels = self.features.channels
        self._out_feature_strides = self.features.strides

    def _freeze(self, look: Look, freeze_at: int) -> None:
        plan = plan_freezing(look, freeze_at)
        self.frozen_modules = tuple(f"timm_model.{n}" for n in plan.apply(self.timm_model))
        parameters = dict(self.timm_model.named_parameters())
        for name in unused_parameters(look.twin, look.outputs):
            parameters[name].requires_grad_(False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, in_channels, H, W)`` to ``{name: (N, C, H / stride, W / stride)}``."""
        raw = self.timm_model(x)
        by_name = {name: raw[position] for name, position in self._positions.items()}
        return self.features.to_maps(by_name, x.shape[-2:])


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "TimmBackbone needs timm, which is not installed: pip install timm"
        ) from error
    return timm


def _check_arguments(timm: ModuleType, name: str, features_only: bool, pretrained: bool) -> None:
    if not isinstance(pretrained, bool):
        raise TypeError(
            f"pretrained must be True or False, got {pretrained!r}: give a file as checkpoint_path."
        )
    if not features_only:
        raise BackboneError(
            "TimmBackbone gives feature maps, got features_only=False: leave it out, or use "
            f"timm.create_model({name!r}) for a classifier."
        )
    # A name with a scheme, such as "hf-hub:...", is looked up by timm elsewhere.
    if ":" in name or timm.is_model(name):
        architecture, _, tag = name.partition(".")
        tags = [t.partition(".")[2] for t in timm.list_pretrained(f"{architecture}.*")]
        if ":" not in name and tag and tag not in tags:
            raise BackboneError(
                f"{architecture} has no weights tagged {tag!r}.{did_you_mean(tag, tags)} "
                f"It has: {', '.join(tags) or 'none'}."
            )
        return
    hint = did_you_mean(name, timm.list_models())
    raise BackboneError(f"timm has no model named {name!r}.{hint or ' See timm.list_models().'}")


def _create(
    timm: ModuleType,
    name: str,
    keywords: Mapping[str, Any],
    indices: Sequence[int],
    pretrained: bool,
) -> nn.Module:
    """Build the feature network."""
    create = functools.partial(
        timm.create_model,
        name,
        features_only=True,
        pretrained=pretrained,
        out_indices=tuple(indices),
    )
    home: Callable[..., Any] = (
        timm.model_entrypoint(name) if timm.is_model(name) else timm.create_model
    )
    who = f"timm's {name!r}"
    try:
        return build_network(who, create, keywords, home, _OTHER_KEYWORDS)
    except AttributeError as error:
        if "feature_info" not in str(error):
            raise
        raise BackboneError(
            f"{who} does not say which features it has (no feature_info): choose another model."
        ) from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise BackboneError(
            f"weights of {who} could not be fetched ({type(error).__name__}: {error}): give "
            "a local file as checkpoint_path, or pretrained=False."
        ) from error


def _feature_info(
    timm: ModuleType, name: str, keywords: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """All features that a network has, found without weights or memory for any."""
    with torch.device("meta"):
        return _create(timm, name, keywords, (0,), pretrained=False).feature_info.info  # type: ignore[union-attr,return-value]


def _default_indices(strides: Sequence[int]) -> tuple[int, ...]:
    """First four indices, or ends of the quarters of a network of one stride."""
    count = len(strides)
    if len(set(strides)) == 1 and count > 4:
        return tuple(count * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
    return DEFAULT_OUT_INDICES[:count]


def _image_sizes(network: nn.Module, kwargs: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Image sizes that a network may take, the likeliest first."""
    asked = kwargs.get("img_size")
    if asked is not None:
        height, width = (asked, asked) if isinstance(asked, int) else asked
        yield int(height), int(width)
    config = getattr(network, "pretrained_cfg", None) or {}
    yield tuple(config.get("input_size") or (3, 224, 224))[1:]
    yield from ((224, 224), (256, 256), (384, 384))


def _feature_table(
    look: Look,
    names: Sequence[str],
    indices: Sequence[int],
    position: Sequence[int],
    strides: Sequence[int],
) -> FeatureTable:
    """Describe the chosen features by timm's strides and by the shapes that were seen."""
    rows = []
    for name, index, place in zip(names, indices, position, strict=True):
        shape = look.outputs[place].shape
        claimed = getattr(look.twin, "output_fmt", None)
        layout = claimed.value if claimed is not None else map_layout(shape, look.image_size)
        channels = shape[3] if layout == "NHWC" else shape[1]
        rows.append(Feature(name, index, channels, strides[index], layout))
    return FeatureTable(tuple(rows))
