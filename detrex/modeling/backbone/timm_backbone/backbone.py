"""Any network of timm (github.com/huggingface/pytorch-image-models) as a backbone."""

import functools
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
from detrex.modeling.backbone.features.chosen_outputs import DEFAULT_OUT_INDICES, select_outputs
from detrex.modeling.backbone.training.norms import chosen_norm
from detrex.modeling.backbone.training.plan import TrainingPlan
from detrex.modeling.backbone.weights.late_init import LateInit
from detrex.modeling.backbone.wrapper.wrapper_backbone import WrapperBackbone

from .builder import check_name, create_network
from .spec import inspect_network, native_norm, network_key
from .weights import find_weights


class TimmBackbone(WrapperBackbone):
    """A network of timm as a detectron2 backbone, its feature maps by stride or by index.

    With `out_strides` output ``res{log2 stride}`` has that stride, in any network: maps that it has
    are given untouched, a plain vision transformer becomes a simple feature pyramid, and what a
    network lacks of the strides 4, 8, 16 and 32 is computed of its nearest map; see
    `FeaturePyramid`. Images may have any size; see `InputSize`.

    With `out_indices` output ``p{i}`` is timm's feature ``i``, so its stride depends on the
    network: index 1 has stride 4 in a ResNet (whose index 0 is the stem) and 8 in a Swin;
    `output_shape` tells. The output dict is in the order of `out_indices`, with the names as given
    (``p-1`` for index -1).

    Every output is an NCHW map, also where timm gives NHWC. Parameters that no output depends on,
    which a few networks have, are kept for the sake of their checkpoints but need no gradient.

    Args:
        model_name: architecture of timm with or without a tag, such as ``"resnet50.a1_in1k"``.
        features_only: always True; there for configs of the original detrex.
        pretrained: as ``weights=True``.
        checkpoint_path: as ``weights``, for a local file.
        in_channels: channels of the image; pretrained kernels are adapted.
        out_indices: which features, in any order; negative ones count from the end. Left out, it is
            the first four, or the end of each quarter of the blocks where all strides are equal.
            Beside `out_strides` it names the maps that levels come from, in a plain network one
            for all levels (default: the last) or one for each.
        norm_layer: norm to build with: a class or function, one of detectron2's names (``"BN"``,
            ``"SyncBN"``, ``"GN"``, ``"LN"``, ...), or one of timm's (``"groupnorm1"``). With a
            frozen batch norm (detectron2's, torchvision's, or ``"FrozenBN"``) and with a
            synchronised one the network is built with its own batch norms, gets its weights, and
            then has them converted exactly.
        out_strides: strides of the outputs in pixels, such as ``(8, 16, 32)``.
        out_features: the same by detectron2's names, such as ``("res3", "res4", "res5")``.
        out_channels: channels of the levels that are computed; by default those of the network.
        weights: True for timm's default weights, one of its tags, a file (``.pth``, ``.pkl``,
            ``.safetensors``, ...) or a folder, an address (``https://``, ``hf-hub:``,
            ``detectron2://``), or a state dict; ``"run.pth#teacher"`` names an entry of a file.
        frozen_norm: freeze the batch norms exactly, as ``norm_layer=FrozenBatchNorm2d``.
        freeze_at: number of stages to freeze as in `ResNet`: 1 is the stem, 2 the stem and the
            stage of stride 4, ... 5 everything; a network of one stride counts quarters of its
            blocks.
        grad_checkpointing: compute each block's activations again in the backward pass instead of
            keeping them.
        **kwargs: passed to ``timm.create_model``, such as ``img_size`` or ``drop_path_rate``; what
            ``pretrained_cfg_overlay`` says of weights and statistics holds here too.

    Raises:
        ImportError: timm is not installed.
        TypeError: an argument of the wrong type, or a keyword that the network does not take.
        BackboneError: an unknown name, stride or index.
        CheckpointError: weights that are not there, or of which too little fits.
        DownloadError: weights that cannot be fetched.

    Example:
        >>> backbone = TimmBackbone("resnet50", out_strides=(8, 16, 32), frozen_norm=True)
        >>> backbone.output_shape()["res3"].channels
        512
    """

    network_name = "timm_model"
    timm_model: nn.Module

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
        out_strides: Sequence[int] | None = None,
        out_features: Sequence[str] | None = None,
        out_channels: int | None = None,
        weights: bool | str | Path | Mapping[str, Any] | None = None,
        frozen_norm: bool = False,
        freeze_at: int = 0,
        grad_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        check_name(model_name, features_only)
        check_in_channels(in_channels, kwargs)
        check_drop_path(kwargs)
        asked = one_way_to_weights(
            pretrained=pretrained, checkpoint_path=checkpoint_path, weights=weights
        )
        norm = chosen_norm(norm_layer, frozen_norm, "timm", lambda: native_norm(model_name, kwargs))
        plan = TrainingPlan(norm, freeze_at, grad_checkpointing)
        keywords = {"in_chans": in_channels, **kwargs, **norm.keywords}
        with norm.naming():
            spec = inspect_network(model_name, keywords)
        outputs = select_outputs(spec, out_strides, out_features, out_indices, out_channels)
        indices = sorted({int(feature.source) for feature in outputs.maps})
        keywords |= spec.input_size.keywords
        build = functools.partial(create_network, model_name, keywords, indices)
        late = None if asked is None else LateInit(build)
        network = build() if late is None else late.network
        built = {"features_only": True, "out_indices": tuple(indices), **keywords}
        source = None if asked is None else find_weights(asked, model_name, network, built)
        key = network_key(model_name, keywords)
        options = {"freeze_unused": True, "key": key and key / indices}
        super().__init__(network, spec, outputs, plan, source, late, **options)
        self._positions = {f.name: indices.index(int(f.source)) for f in outputs.maps}
        if out_strides is None and out_features is None:
            self.out_indices = tuple(int(name[1:]) for name in outputs.features.names)

    def extract(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Run timm's network on images that it takes; see `WrapperBackbone.extract`."""
        raw = self.timm_model(images)
        return {name: raw[position] for name, position in self._positions.items()}
