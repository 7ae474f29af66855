"""Any network of images of Hugging Face's transformers as a backbone."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detrex.modeling.backbone.arguments import (
    check_drop_path,
    check_in_channels,
    one_way_to_weights,
)
from detrex.modeling.backbone.inspection.findings import recall
from detrex.modeling.backbone.inspection.meta_run import on_meta_or_cpu
from detrex.modeling.backbone.training.plan import TrainingPlan
from detrex.modeling.backbone.weights.late_init import LateInit
from detrex.modeling.backbone.wrapper.wrapper_backbone import WrapperBackbone

from .builder import forward_keywords, norm_of, recipe_of
from .naming import named_network
from .network import TransformersNetwork, is_backbone
from .outputs import choose_outputs
from .spec import inspect_network
from .unused_parts import find_unused_parts, leave_out
from .weights import find_weights, statistics_of

logger = logging.getLogger(__name__)


class HuggingFaceBackbone(WrapperBackbone):
    """A network of transformers as a detectron2 backbone, its feature maps by stride or by stage.

    With `out_strides` output ``res{log2 stride}`` has that stride, in any network, as with
    `TimmBackbone`: maps that it has are given untouched, a plain vision transformer becomes a
    simple feature pyramid, and what a network lacks is computed; see `FeaturePyramid`. Images may
    have any size; see `InputSize`.

    Networks are those of ``AutoBackbone``, and those of images of ``AutoModel``. A network's maps
    are counted as transformers counts them: 0 is the stem, or the embedded patches, and 1, 2, ...
    are its stages, or the blocks of a plain transformer (whose last map is behind its final norm).
    Each output is an NCHW map, class and register tokens left out. Parts that no output depends on
    are left out: heads, poolers, mask tokens, blocks behind the last map taken. Code of a
    repository is never run (``trust_remote_code``).

    `out_strides`, `out_features`, `out_channels`, `in_channels`, `frozen_norm`, `freeze_at` and
    `grad_checkpointing` are those of `TimmBackbone`.

    Args:
        model_name: a repository of the hub (``"facebook/dinov2-small"``, ``"owner/name@revision"``)
            or a folder that ``save_pretrained`` wrote; or, for random values, a type (``"swin"``)
            or a config of transformers.
        out_strides: strides of the outputs in pixels; ``(8, 16, 32)`` where nothing is said.
        out_features: the same by detectron2's names, ``("res3", "res4", "res5")``; or names of the
            network's stages, such as ``("stage2", "stage4")``, which are given as they are.
        out_indices: places of maps, negative ones from the end; outputs are then ``p{i}``. Beside
            `out_strides` it names the maps that levels come from.
        out_channels: channels of the levels that are computed; by default those of the network.
        weights: True for the weights of the repository or folder, a file (``.safetensors``,
            ``.bin``, ...), a folder, an address (``https://``, ``hf-hub:``), or a state dict;
            ``"run.pth#teacher"`` names an entry of a file. None gives random values.
        in_channels: channels of the image; pretrained kernels are adapted.
        norm_layer: None, or a frozen or synchronised batch norm (``"FrozenBN"``, ``"SyncBN"``, a
            class) to which those of the network are converted.
        frozen_norm: freeze the batch norms exactly.
        freeze_at: number of stages to freeze, 1 being the stem.
        grad_checkpointing: compute each block's activations again in the backward pass.
        **kwargs: changes of the network's config, such as ``drop_path_rate`` or
            ``num_hidden_layers``, and ``attn_implementation``.

    Raises:
        ImportError: transformers is not installed.
        TypeError: an argument of the wrong type, or a keyword that is not in the config.
        BackboneError: an unknown name, stride or index, or a network of something else than images.
        CheckpointError: files that are not there or damaged, or weights of which too little fits.
        DownloadError: what is on the hub cannot be fetched.

    Example:
        >>> tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        >>> backbone = HuggingFaceBackbone("dinov2", out_strides=(8, 16, 32), **tiny)
        >>> backbone.output_shape()["res4"].channels
        32
    """

    network_name = "hf_model"
    hf_model: nn.Module

    def __init__(
        self,
        model_name: Any,
        *,
        out_strides: Sequence[int] | None = None,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_channels: int | None = None,
        weights: bool | str | Path | Mapping[str, Any] | None = None,
        in_channels: int = 3,
        norm_layer: Any = None,
        frozen_norm: bool = False,
        freeze_at: int = 0,
        grad_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        check_in_channels(in_channels, kwargs)
        check_drop_path(kwargs)
        asked = one_way_to_weights(weights=weights)
        named = named_network(model_name)
        recipe = recipe_of(named, kwargs, in_channels)
        norm = norm_of(norm_layer, frozen_norm, recipe)
        plan = TrainingPlan(norm, freeze_at, grad_checkpointing)
        spec = inspect_network(recipe, in_channels)
        own = statistics_of(named.home)
        if own is not None:
            spec = dataclasses.replace(spec, statistics=own.with_channels(in_channels))
        outputs = choose_outputs(spec, out_strides, out_features, out_indices, out_channels)
        places = tuple(sorted({int(feature.source) for feature in outputs.maps}))
        keywords = {**forward_keywords(recipe.kind), **spec.input_size.keywords}

        def whole() -> TransformersNetwork:
            if is_backbone(recipe.kind):
                return TransformersNetwork(recipe.build(places), keywords)
            return TransformersNetwork(recipe.build(), keywords, places, spec.count)

        def unused_parts(device: str) -> tuple[str, ...]:
            with torch.device(device):
                network = whole()
            return find_unused_parts(network, spec)

        key = recipe.key and recipe.key / (places, "parts")
        unused = recall(key, lambda: on_meta_or_cpu(unused_parts))

        def build() -> nn.Module:
            network = whole()
            leave_out(network, unused)
            return network

        late = None if asked is None else LateInit(build)
        network = build() if late is None else late.network
        wanted = {name.removeprefix("model.") for name in network.state_dict()}
        source = None if asked is None else find_weights(asked, named, recipe, wanted, own)
        if source is None and named.home is not None:
            logger.warning("%s starts from random values: weights=True gives it its own", named.who)
        super().__init__(network, spec, outputs, plan, source, late, freeze_unused=True, key=key)
        self._positions = {f.name: places.index(int(f.source)) for f in outputs.maps}

    def extract(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Run the network on images that it takes; see `WrapperBackbone.extract`."""
        raw = self.hf_model(images)
        return {name: raw[position] for name, position in self._positions.items()}
