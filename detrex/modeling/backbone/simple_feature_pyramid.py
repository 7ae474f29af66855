"""Feature pyramid over a plain vision transformer (ViTDet, arXiv:2203.16527).

Both names are detectron2's; the pyramid publishes the padding that it needs under the right key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone import SimpleFeaturePyramid as _SimpleFeaturePyramid
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from jaxtyping import Float
from torch import nn

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.pixel_statistics import PixelStatistics

from .staged import check_integer
from .top_block import top_levels
from .training.norms import NORM_NAMES

__all__ = ["SimpleFeaturePyramid", "get_vit_lr_decay_rate"]

_REFERENCE = "${.net.out_feature}"

_SCALES = (4.0, 2.0, 1.0, 0.5)


class SimpleFeaturePyramid(_SimpleFeaturePyramid):
    """Pyramid of maps made from the single map of a plain network (arXiv:2203.16527, section 3).

    Outputs are named ``p{log2 stride}`` and come from the finest to the coarsest, those of the top
    block last. The top block's ``in_feature`` is one of these levels, or else a map of `net`.

    Args:
        net: network that gives the map, such as detectron2's ``ViT``.
        in_feature: name of the map; ``"${.net.out_feature}"``, as configs refer to it, stands for
            the only one where no config has resolved it.
        out_channels: channels of every output.
        scale_factors: size of each level relative to the map: neighbours among 4.0, 2.0, 1.0 and
            0.5, descending.
        top_block: block that makes coarser levels of the last one, such as ``LastLevelMaxPool``.
        norm: norm after each convolution, as for detectron2's ``get_norm``.
        square_pad: if above 0, images are to be padded to a square of this many pixels.

    Raises:
        TypeError: `net` is no backbone, or `top_block` no such block.
        BackboneError: `net` has no map of this name, a scale is not one of those above, levels do
            not double in stride, the norm is unknown, a number is out of its range, or the top
            block's map is not there or has other channels than the block.
    """

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: nn.Module | None = None,
        norm: Any = "LN",
        square_pad: int = 0,
    ) -> None:
        _check(net, top_block, norm)
        check_integer("SimpleFeaturePyramid", "out_channels", out_channels, 1)
        check_integer("SimpleFeaturePyramid", "square_pad", square_pad, 0)
        shapes = net.output_shape()
        if in_feature == _REFERENCE and len(shapes) == 1:
            (in_feature,) = shapes
        if in_feature not in shapes:
            raise BackboneError(
                f"{type(net).__name__} gives the maps {', '.join(shapes)}, got in_feature="
                f"{in_feature!r}.{did_you_mean(in_feature, shapes)}"
            )
        scales = _checked_scales(scale_factors)
        stride = shapes[in_feature].stride or 1
        strides = [stride / scale for scale in scales]
        if not all(map(float.is_integer, strides)) or strides != [
            strides[0] * 2**place for place in range(len(strides))
        ]:
            raise BackboneError(
                f"scale_factors {scales} make levels of the strides {strides} from {in_feature!r} "
                f"of stride {stride}, expected whole numbers that double: mend scale_factors, or "
                "take a map whose stride is a power of two."
            )
        super().__init__(net, in_feature, out_channels, scales, top_block, norm, square_pad)
        self._size_divisibility = max(stride, int(stride / scales[-1]))
        if top_block is not None:
            self._describe_top_levels(top_block, shapes)

    def _describe_top_levels(self, top_block: nn.Module, shapes: Mapping[str, ShapeSpec]) -> None:
        """Publish channels and strides of the top block's levels as it gives them."""
        names = self._out_features[len(self.scale_factors) :]
        own = {name: shape for name, shape in self.output_shape().items() if name not in names}
        source = getattr(top_block, "in_feature", None)
        shape = {**shapes, **own}.get(source)
        if shape is None:
            there = ", ".join({**own, **shapes})
            raise BackboneError(
                f"the top block {type(top_block).__name__} takes the map {source!r}, and "
                f"there are {there}: set its in_feature to the last level, {[*own][-1]!r}."
                f"{did_you_mean(str(source), {**own, **shapes})}"
            )
        for name, level in zip(names, top_levels(top_block, str(source), shape), strict=True):
            self._out_feature_channels[name] = level.channels
            self._out_feature_strides[name] = level.stride

    def forward(
        self, x: Float[torch.Tensor, "n c h w"]
    ) -> dict[str, Float[torch.Tensor, "n _ _ _"]]:
        """Map images to levels.

        Args:
            x: images ``(N, 3, H, W)``, padded as `padding_constraints` says.

        Returns:
            ``{name: (N, C, H / stride, W / stride)}``.
        """
        maps = self.net(x)
        levels = [stage(maps[self.in_feature]) for stage in self.stages]
        own = dict(zip(self._out_features, levels, strict=False))
        if self.top_block is not None:
            levels += self.top_block({**maps, **own}[self.top_block.in_feature])
        return dict(zip(self._out_features, levels, strict=True))

    @property
    def preprocess(self) -> PixelStatistics | None:
        """Statistics of the images that `net` expects; None for one that does not say."""
        return getattr(self.net, "preprocess", None)

    @property
    def size_divisibility(self) -> int:
        """Multiple of pixels that height and width of an image must have."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Padding that images need: ``size_divisibility`` and ``square_size`` (0 for none)."""
        inner = getattr(self.net, "padding_constraints", None) or {}
        square = self._square_pad or inner.get("square_size", 0)
        return {"size_divisibility": self._size_divisibility, "square_size": square}


def _check(net: Any, top_block: Any, norm: Any) -> None:
    if not isinstance(net, Backbone):
        raise TypeError(
            f"SimpleFeaturePyramid takes a backbone such as EVAViT as net, got {_short(net)}."
        )
    if top_block is not None and not hasattr(top_block, "num_levels"):
        raise TypeError(
            "SimpleFeaturePyramid takes a block with num_levels and in_feature, such as "
            f"LastLevelMaxPool, as top_block, got {_short(top_block)}."
        )
    if not (norm is None or callable(norm) or norm in ("", *NORM_NAMES)):
        raise BackboneError(
            f"norm must be a function of the channels, '' or one of {', '.join(NORM_NAMES)}, got "
            f"{_short(norm)}.{did_you_mean(norm, NORM_NAMES)}"
        )


def _checked_scales(scale_factors: Sequence[float]) -> list[float]:
    try:
        scales = [float(scale) for scale in scale_factors]
    except (TypeError, ValueError):
        scales = []
    if not scales or any(scale not in _SCALES for scale in scales):
        raise BackboneError(
            f"scale_factors must be some of {_SCALES} in this order, got {_short(scale_factors)}."
        )
    return scales


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:80]
