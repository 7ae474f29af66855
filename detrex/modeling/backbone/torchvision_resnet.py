"""torchvision's ResNet with frozen batch norms, as the DETR family (arXiv:2005.12872) uses it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone
from jaxtyping import Float
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.pixel_statistics import IMAGENET, PixelStatistics

from .arguments import one_way_to_weights
from .features.output_levels import check_out_features
from .torchvision_backbone.builder import build_classifier
from .torchvision_backbone.input_channels import set_input_channels
from .torchvision_backbone.weights import find_weights, first_weights
from .training.freezing import KeepsFrozen
from .weights.pretrained import load_pretrained

__all__ = ["FrozenBatchNorm2d", "TorchvisionResNet"]

_STRIDES = {"conv1": 2, "bn1": 2, "relu": 2, "maxpool": 4} | {
    f"layer{i}": 2 ** (i + 1) for i in range(1, 5)
}
_DEFAULT_LAYERS: Mapping[str, str] = MappingProxyType({"layer4": "res5"})
_LAYER_OF = {"stem": "maxpool"} | {f"res{i + 1}": f"layer{i}" for i in range(1, 5)}
_TRAINED = ("layer2", "layer3", "layer4")


class TorchvisionResNet(KeepsFrozen, Backbone):
    """torchvision ResNet whose batch norms, stem and first stage are frozen.

    Weights are those of ``body.*``, with torchvision's names.

    Args:
        name: a ResNet of torchvision, such as ``"resnet50"``.
        train_backbone: train ``layer2`` to ``layer4``; False freezes everything.
        return_layers: layer of the network to name of the output; outputs come in the order of the
            network.
        dilation: dilate ``layer4`` instead of striding (DC5): its stride is 16.
        pretrained: load torchvision's first ImageNet weights.
        weights: True for torchvision's default weights, an enum member or its name, a file, an
            address, or a state dict; see `find_source`.
        in_channels: channels of the image; pretrained kernels are adapted.
        out_features: in the place of `return_layers`, outputs by detectron2's names: ``"stem"``,
            ``"res2"`` (``layer1``) ... ``"res5"`` (``layer4``).

    Raises:
        BackboneError: an unknown network, layer or name of weights, or a dilation that the network
            cannot have.
        CheckpointError: weights that are not there, or of which too little fits.
        DownloadError: weights that cannot be fetched.
    """

    preprocess: PixelStatistics

    def __init__(
        self,
        name: str,
        train_backbone: bool,
        return_layers: Mapping[str, str] = _DEFAULT_LAYERS,
        dilation: bool = False,
        *,
        pretrained: bool = False,
        weights: Any | str | Path | None = None,
        in_channels: int = 3,
        out_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not name.startswith(("resnet", "resnext", "wide_resnet")):
            raise BackboneError(
                f"TorchvisionResNet takes a ResNet such as 'resnet50', got {name!r}: "
                "use TorchvisionBackbone for other networks."
            )
        shallow = name in ("resnet18", "resnet34")
        if dilation and shallow:
            raise BackboneError(
                f"{name} has basic blocks, which cannot be dilated: use dilation=False or resnet50."
            )
        source = one_way_to_weights(pretrained=pretrained, weights=weights)
        network = build_classifier(
            name,
            norm_layer=FrozenBatchNorm2d,
            replace_stride_with_dilation=[False, False, dilation],
        )
        set_input_channels(network, in_channels)
        layers = _check_layers(_requested_layers(return_layers, out_features))
        self.body = IntermediateLayerGetter(network, layers)
        if pretrained:
            source = first_weights(name)
        self.preprocess = IMAGENET.with_channels(in_channels)
        if source is not None:
            loaded = load_pretrained(self, find_weights(source, name, in_channels), in_channels)
            self.preprocess = loaded.statistics or self.preprocess
        self.num_channels = 512 if shallow else 2048
        strides = _STRIDES | ({"layer4": 16} if dilation else {})
        ordered = {layer: layers[layer] for layer in self.body if layer in layers}
        self._out_features = list(ordered.values())
        self._out_feature_strides = {out: strides[layer] for layer, out in ordered.items()}
        self._out_feature_channels = {
            out: self._channels(layer, self.num_channels) for layer, out in ordered.items()
        }
        trained = _TRAINED if train_backbone else ()
        frozen = [name for name, _ in self.body.named_children() if name not in trained]
        self.freeze_modules(f"body.{name}" for name in frozen)

    @staticmethod
    def _channels(layer: str, num_channels: int) -> int:
        return num_channels // 2 ** (4 - int(layer[-1])) if layer.startswith("layer") else 64

    def forward(
        self, x: Float[torch.Tensor, "n c h w"]
    ) -> dict[str, Float[torch.Tensor, "n _ _ _"]]:
        """Map images ``(N, in_channels, H, W)`` to ``{name: (N, C, H / stride, W / stride)}``."""
        return dict(self.body(x))


def _requested_layers(
    return_layers: Mapping[str, str], out_features: Sequence[str] | None
) -> Mapping[str, str]:
    if out_features is None:
        return return_layers
    names = check_out_features(out_features, _LAYER_OF, "torchvision's ResNet")
    if return_layers is not _DEFAULT_LAYERS:
        raise BackboneError(
            f"got out_features={names} beside return_layers={dict(return_layers)}, "
            "which say the same in two ways: leave one of them out."
        )
    return {_LAYER_OF[name]: name for name in names}


def _check_layers(return_layers: Mapping[str, str]) -> dict[str, str]:
    layers = dict(return_layers)
    for layer in layers:
        if layer not in _STRIDES:
            raise BackboneError(
                f"torchvision's ResNet has the layers {', '.join(_STRIDES)}, got {layer!r} in "
                f"return_layers.{did_you_mean(layer, _STRIDES)}"
            )
    if not layers:
        raise BackboneError("return_layers is empty: name at least one layer, such as 'layer4'.")
    return layers
