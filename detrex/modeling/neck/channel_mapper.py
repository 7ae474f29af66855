"""From the backbone's maps to levels of equal width."""

import copy
from collections.abc import Mapping, Sequence

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from detrex.errors import ConfigError, did_you_mean
from detrex.layers import ConvNormAct


class ChannelMapper(nn.Module):
    """Bring maps to one width by a convolution each, and add coarser levels below the last.

    The first added level is computed from the last backbone map itself, not from its mapped
    version; each later one from the level before it.

    Args:
        input_shapes: what the backbone offers; only ``channels`` of each entry is read.
        in_features: names of the maps to use, finest first.
        out_channels: width of the levels.
        kernel_size: side of the mapping kernels.
        stride: stride of the mapping convolutions.
        bias: whether the convolutions have a bias; False is enough where a norm follows.
        groups: number of groups of the convolutions.
        dilation: dilation of the convolutions.
        norm_layer: a module (not a class), copied for each level.
        activation: a module (not a class), copied for each level.
        num_outs: number of levels in total; ``len(in_features)`` by default.

    Raises:
        ConfigError: when ``in_features`` is empty, names a map that ``input_shapes`` does not have,
            or has more maps than ``num_outs``.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec],
        in_features: Sequence[str],
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        bias: bool = True,
        groups: int = 1,
        dilation: int = 1,
        norm_layer: nn.Module | None = None,
        activation: nn.Module | None = None,
        num_outs: int | None = None,
    ) -> None:
        super().__init__()
        self.input_shapes = dict(input_shapes)
        self.in_features = list(in_features)
        self.out_channels = out_channels
        if not self.in_features:
            raise ConfigError("ChannelMapper needs at least one name in in_features, got none.")
        _require(self.in_features, self.input_shapes, "input_shapes")
        num_outs = len(self.in_features) if num_outs is None else num_outs
        if num_outs < len(self.in_features):
            raise ConfigError(
                f"num_outs is {num_outs}, but in_features has {len(self.in_features)} maps "
                f"{self.in_features}; raise num_outs or leave out maps."
            )

        def conv(in_channels: int, kernel_size: int, stride: int) -> ConvNormAct:
            return ConvNormAct(
                in_channels,
                out_channels,
                kernel_size=kernel_size,
                stride=stride,
                padding=(kernel_size - 1) // 2,
                dilation=dilation,
                groups=groups,
                bias=bias,
                norm_layer=copy.deepcopy(norm_layer),
                activation=copy.deepcopy(activation),
            )

        channels = [self.input_shapes[name].channels for name in self.in_features]
        self.convs = nn.ModuleList(conv(width, kernel_size, stride) for width in channels)
        extra_channels = [channels[-1], *[out_channels] * num_outs][: num_outs - len(channels)]
        self.extra_convs = (
            nn.ModuleList(conv(width, 3, 2) for width in extra_channels) if extra_channels else None
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Map the named maps and add the coarser levels.

        Args:
            inputs: (N, C, H, W) maps by name; those that are not in ``in_features`` are left alone.

        Returns:
            ``num_outs`` levels (N, out_channels, H, W), finest first.

        Raises:
            ConfigError: when a map of ``in_features`` is missing.
        """
        _require(self.in_features, inputs, "the backbone's output")
        maps = [inputs[name] for name in self.in_features]
        levels = [conv(feature) for conv, feature in zip(self.convs, maps, strict=True)]
        feature = maps[-1]
        for conv in self.extra_convs or ():
            feature = conv(feature)
            levels.append(feature)
        return tuple(levels)


def _require(names: Sequence[str], available: Mapping[str, object], where: str) -> None:
    """Raise when a name is not available."""
    missing = [name for name in names if name not in available]
    if missing:
        hint = did_you_mean(missing[0], available)
        raise ConfigError(
            f"in_features asks for {', '.join(map(repr, missing))}, which {where} does not have; "
            f"there is {', '.join(map(repr, available)) or 'nothing'}.{hint}"
        )
