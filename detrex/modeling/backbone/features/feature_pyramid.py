"""The learned layers between a network's feature maps and levels of other strides."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn

from detrex.errors import BackboneError
from detrex.layers import LayerNorm

from .output_levels import Level


def _block_name(stride: int) -> str:
    """Key of a level's learned layers in the state dict: ``p3`` for 8."""
    return f"p{round(math.log2(stride))}"


class FeaturePyramid(nn.Module):
    """Levels computed from the feature maps of a network.

    Args:
        levels: as `plan_levels` gave them.
        out_channels: channels of the levels that pass learned layers; those of their map when None.

    Raises:
        BackboneError: `out_channels` is not a positive integer.
    """

    def __init__(self, levels: Sequence[Level], out_channels: int | None = None) -> None:
        super().__init__()
        self.levels = tuple(levels)
        if out_channels is not None and (type(out_channels) is not int or out_channels < 1):
            raise BackboneError(
                f"out_channels must be a positive integer or None, got {out_channels!r}."
            )
        self.channels = {level.name: level.channels(out_channels) for level in levels}
        self.blocks = nn.ModuleDict(
            {
                _block_name(level.stride): _level_block(
                    level.source.channels, self.channels[level.name], level.log2_scale
                )
                for level in levels
                if level.learned
            }
        )

    def forward(
        self,
        maps: Mapping[str, Float[torch.Tensor, "n _ _ _"]],
        strides: Mapping[str, Sequence[float]],
    ) -> dict[str, Float[torch.Tensor, "n _ _ _"]]:
        """Compute the levels.

        Args:
            maps: the network's maps ``(N, C, h, w)`` by the name of the source.
            strides: exact vertical and horizontal stride of each map in pixels.

        Returns:
            Levels ``(N, C, h, w)`` by name.
        """
        outputs = {}
        for level in self.levels:
            target = level.resampled_stride or level.source.stride
            level_map = _resample(maps[level.source.name], strides[level.source.name], target)
            if level.learned:
                level_map = self.blocks[_block_name(level.stride)](level_map)
            outputs[level.name] = level_map
        return outputs


def _resample(level_map: torch.Tensor, strides: Sequence[float], target: int) -> torch.Tensor:
    """Resample a map to another stride, cell centres staying where they are in the image."""
    # A hair more, lest rounding down loses a cell of a scale such as 14 / 8.
    scale = [stride / target * (1 + 1e-9) for stride in strides]
    if all(abs(factor - 1) < 1e-6 for factor in scale):
        return level_map
    return F.interpolate(
        level_map,
        scale_factor=scale,
        mode="bilinear",
        align_corners=False,
        recompute_scale_factor=False,
    )


def _level_block(in_channels: int, out_channels: int, log2_scale: int) -> nn.Sequential:
    """Learned layers of one level: up or down by powers of two, then 1x1 and 3x3 convolutions."""
    layers: list[nn.Module] = []
    width = in_channels
    for step in range(log2_scale):
        if step:
            layers += [LayerNorm(width, channel_last=False), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, max(width // 2, 1), kernel_size=2, stride=2))
        width = max(width // 2, 1)
    for _ in range(-log2_scale):
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True))
    layers += [
        nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
        LayerNorm(out_channels, channel_last=False),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm(out_channels, channel_last=False),
    ]
    return nn.Sequential(*layers)
