"""The last stage of a network as the stage that a C4 detector runs on the maps of regions.

Faster R-CNN without a pyramid (``Res5ROIHeads``) splits its network: the backbone gives the map of
stride 16, and each region, pooled from that map, goes through the stage after it. `RoiStage` is
that stage of any backbone; `splitting.py` finds the module whose place the regions take::

    image (nothing is computed) -> modules taken out (empty tensors of the shapes that they gave)
        -> entrance (gives the regions) -> the last stage, in the network's own code
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from detrex.detectors import published_statistics
from detrex.errors import BackboneError
from detrex.modeling.pixel_statistics import PixelStatistics

from .splitting import NoSplitError, Regions, split
from .training.activation_checkpointing import keeping_statistics


class RoiStage(nn.Module):
    """What a backbone computes from one of its maps to another, run on maps of regions.

    Parameters keep their names, behind ``backbone.``, and what the backbone froze stays frozen.

    Args:
        backbone: gives both maps; what it computes up to the first of them is taken out of it.
        in_feature: its map that regions are pooled from.
        out_feature: its map that the stage ends with.
        pooled_size: side of a region's map in cells.
        out_channels: channels of the output, for references to it in a config; None where there
            are none.

    Attributes:
        entrance: name of the module in whose place regions enter.

    Raises:
        BackboneError: the stage cannot be run by itself, with the reason, or `out_channels` is
            wrong.

    Example:
        >>> from detrex.modeling.backbone import TimmBackbone
        >>> stage = RoiStage(TimmBackbone("resnet18", out_strides=(16, 32)))
        >>> stage(torch.zeros(7, 256, 14, 14)).shape
        torch.Size([7, 512, 7, 7])
    """

    def __init__(
        self,
        backbone: nn.Module,
        in_feature: str = "res4",
        out_feature: str = "res5",
        pooled_size: int = 14,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        who = type(backbone).__name__
        shapes: Any = backbone.output_shape()  # type: ignore[operator]
        for name in (in_feature, out_feature):
            if name not in shapes:
                raise BackboneError(f"{who} gives the maps {', '.join(shapes)}, got {name!r}.")
        self.in_feature, self.out_feature = in_feature, out_feature
        self.out_channels = shapes[out_feature].channels
        if out_channels not in (None, self.out_channels):
            raise BackboneError(
                f"{out_feature} of {who} has {self.out_channels} channels, got out_channels="
                f"{out_channels}: leave it out, or set it to what the map has."
            )
        side = pooled_size * shapes[in_feature].stride
        self._image_shape = (_image_channels(backbone), side, side)
        self._regions = Regions()
        try:
            image = torch.empty(2, *self._image_shape, device="meta")
            self.entrance = split(backbone, image, self._regions, in_feature, out_feature)
            self.backbone = backbone
            self._try_out(shapes[in_feature].channels, pooled_size)
        except NoSplitError as error:
            raise BackboneError(
                f"{who} has no stage from {in_feature} to {out_feature} that runs by itself on "
                f"regions of {pooled_size} x {pooled_size} cells: {error}."
            ) from error

    def forward(self, x: Float[torch.Tensor, "n c h h"]) -> Float[torch.Tensor, "n _ _ _"]:
        """Run the stage.

        Args:
            x: maps of regions ``(R, C, pooled_size, pooled_size)``.

        Returns:
            ``(R, out_channels, h, w)``.
        """
        if len(x):
            return self._maps(x)[self.out_feature]
        # Attention cannot lay out what is empty; the sum keeps the gradient's way.
        with keeping_statistics([self.backbone]):
            maps = self._maps(x.new_zeros(1, *x.shape[1:]))
        return maps[self.out_feature][:0] + x.sum()

    def _maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        with self._regions.entering(x):
            return self.backbone(torch.empty(len(x), *self._image_shape, device="meta"))

    def _try_out(self, channels: int, pooled_size: int) -> None:
        """Run the stage once, where there is data to run it on."""
        parameter = next(self.backbone.parameters(), torch.empty(0))
        if parameter.is_meta:
            return
        count = channels * pooled_size**2
        x = torch.linspace(-1, 1, count, device=parameter.device, dtype=parameter.dtype)
        x = x.reshape(1, channels, pooled_size, pooled_size)
        was_training = self.training
        try:
            with torch.no_grad():
                maps = self.eval()._maps(x.clone())
        except Exception as error:  # any forward may fail in its own way
            raise NoSplitError(f"it failed with {type(error).__name__}: {error!s:.150}") from error
        finally:
            self.train(was_training)
        if maps[self.out_feature].is_meta or not torch.equal(maps[self.in_feature], x):
            raise NoSplitError(f"{self.out_feature} is not computed from {self.in_feature} alone")


def _image_channels(backbone: nn.Module) -> int:
    statistics = published_statistics(backbone)
    if isinstance(statistics, PixelStatistics):  # a stem may rearrange pixels before it convolves
        return len(statistics.pixel_mean)
    convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return next((convolution.in_channels for convolution in convolutions), 3)
