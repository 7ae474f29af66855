"""Feature pyramid over a plain vision transformer (ViTDet, arXiv:2203.16527).

Both names are detectron2's; the pyramid publishes the padding that it needs under the right key.
"""

from collections.abc import Sequence
from typing import Any

from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone import SimpleFeaturePyramid as _SimpleFeaturePyramid
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from torch import nn

from detrex.errors import BackboneError, did_you_mean

from .preprocess import Preprocess

__all__ = ["SimpleFeaturePyramid", "get_vit_lr_decay_rate"]

_SCALES = (4.0, 2.0, 1.0, 0.5)


class SimpleFeaturePyramid(_SimpleFeaturePyramid):
    """Pyramid of maps made from the single map of a plain network (arXiv:2203.16527, section 3).

    Outputs are named ``p{log2 stride}`` and come from the finest to the coarsest, those of the top
    block last.

    Args:
        net: network that gives the map, such as detectron2's ``ViT``.
        in_feature: name of the map.
        out_channels: channels of every output.
        scale_factors: size of each level relative to the map: 4.0, 2.0, 1.0 or 0.5, descending.
        top_block: block that makes coarser levels of the last one, such as ``LastLevelMaxPool``.
        norm: norm after each convolution, as for detectron2's ``get_norm``.
        square_pad: if above 0, images are to be padded to a square of this many pixels.

    Raises:
        BackboneError: `net` has no map of this name, or a scale is not one of those above.
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
        shapes = net.output_shape()
        if in_feature not in shapes:
            raise BackboneError(
                f"{type(net).__name__} gives the maps {', '.join(shapes)}, got in_feature="
                f"{in_feature!r}.{did_you_mean(in_feature, shapes)}"
            )
        scales = [float(scale) for scale in scale_factors]
        if not scales or any(scale not in _SCALES for scale in scales):
            raise BackboneError(
                f"scale_factors must be some of {_SCALES} in this order, got {scales}."
            )
        super().__init__(net, in_feature, out_channels, scales, top_block, norm, square_pad)

    @property
    def preprocess(self) -> Preprocess | None:
        """Statistics of the images that `net` expects; None for one that does not say."""
        return getattr(self.net, "preprocess", None)

    @property
    def size_divisibility(self) -> int:
        """Multiple of pixels that height and width of an image must have."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Padding that images need: ``size_divisibility`` and ``square_size`` (0 for none)."""
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}
