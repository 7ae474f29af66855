"""From the backbone's maps to levels of equal width."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial

from detectron2.layers import ShapeSpec
from jaxtyping import Float
from torch import Tensor, nn

from detrex.errors import ConfigError, did_you_mean
from detrex.layers import ConvNormAct


class ChannelMapper(nn.Module):
    """Bring maps to one width by a convolution each, and add coarser levels below the last.

    The first added level is computed from the last backbone map itself, not from its mapped
    version; each later one from the level before it.

    The neck sizes itself: without `input_shapes` it has no convolutions until `connect` tells it
    what the backbone offers, which a detector does when it is built.

    Args:
        input_shapes: what the backbone offers; ``channels`` of each entry is read. None leaves it
            to `connect`.
        in_features: names of the maps to use, finest first. By default all of them, by stride.
        out_channels: width of the levels.
        kernel_size: side of the mapping kernels.
        stride: stride of the mapping convolutions.
        bias: whether the convolutions have a bias; False is enough where a norm follows.
        groups: number of groups of the convolutions.
        dilation: dilation of the convolutions.
        norm_layer: a module (not a class), copied for each level.
        activation: a module (not a class), copied for each level.
        num_outs: number of levels in total; ``len(in_features)`` by default.

    Attributes:
        input_shapes: as given, or what `connect` was told; None before.
        in_features: the names of the maps in use; None before, where none were given.

    Raises:
        ConfigError: when ``in_features`` is empty, names a map that ``input_shapes`` does not have,
            ends before the coarsest map where levels are added, or has more maps than ``num_outs``.

    Example:
        >>> neck = ChannelMapper(out_channels=8).connect(
        ...     {"p4": ShapeSpec(channels=5, stride=16), "p3": ShapeSpec(channels=3, stride=8)}
        ... )
        >>> neck.in_features
        ['p3', 'p4']
    """

    convs: nn.ModuleList
    extra_convs: nn.ModuleList | None

    def __init__(
        self,
        input_shapes: Mapping[str, ShapeSpec] | None = None,
        in_features: Sequence[str] | None = None,
        out_channels: int = 256,
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
        self.input_shapes = None if input_shapes is None else dict(input_shapes)
        self.in_features = None if in_features is None else list(in_features)
        self.out_channels = out_channels
        self.convs = nn.ModuleList()
        self.extra_convs = None
        self._num_outs = num_outs
        # In a partial, the norm and the activation to copy are no parts of the neck.
        self._level = partial(
            _level,
            out_channels,
            dilation=dilation,
            groups=groups,
            bias=bias,
            norm_layer=norm_layer,
            activation=activation,
        )
        self._mapping = (kernel_size, stride)
        if self.in_features is not None:
            _check_count(self.in_features, num_outs)
        if self.input_shapes is not None:
            self._build(self.input_shapes)

    @property
    def is_connected(self) -> bool:
        """Whether the neck knows the maps that it gets, and so has its convolutions."""
        return len(self.convs) > 0

    @property
    def num_outs(self) -> int | None:
        """Number of levels; None while that depends on a backbone that is not known yet."""
        if self._num_outs is not None or self.in_features is None:
            return self._num_outs
        return len(self.in_features)

    def connect(
        self, input_shapes: Mapping[str, ShapeSpec], source: str = "the backbone"
    ) -> "ChannelMapper":
        """Build the convolutions for the maps that a backbone offers, or compare them with those.

        What was given to the constructor stays; a second call with the same shapes does nothing.

        Args:
            input_shapes: the backbone's ``output_shape()``.
            source: who offers them, for the message.

        Returns:
            The neck itself.

        Raises:
            ConfigError: when a map in use is missing or has other channels than the neck was built
                for, with both sides in the message.
        """
        if self.is_connected:
            self._compare(input_shapes, source)
        else:
            self._build(input_shapes, source)
        return self

    def _build(self, input_shapes: Mapping[str, ShapeSpec], source: str = "input_shapes") -> None:
        names = _by_stride(input_shapes) if self.in_features is None else self.in_features
        _require(names, input_shapes, source)
        num_outs = _check_count(names, self._num_outs)
        ordered = _by_stride({name: input_shapes[name] for name in names})
        if num_outs > len(names) and ordered != names:
            raise ConfigError(
                f"the neck makes coarser levels of the last of its maps {names}, which is not the "
                f"coarsest: name the finest map first, in_features={ordered}, or leave it out."
            )
        self.input_shapes, self.in_features = dict(input_shapes), names
        channels = [input_shapes[name].channels for name in names]
        kernel_size, stride = self._mapping
        self.convs.extend(
            self._level(width, kernel_size=kernel_size, stride=stride) for width in channels
        )
        extra_channels = [channels[-1], *[self.out_channels] * num_outs][: num_outs - len(names)]
        if extra_channels:
            extra = [self._level(width, kernel_size=3, stride=2) for width in extra_channels]
            self.extra_convs = nn.ModuleList(extra)

    def _compare(self, offered: Mapping[str, ShapeSpec], source: str) -> None:
        shapes = self.input_shapes or {}
        expected = {name: shapes[name].channels for name in self.in_features or ()}
        given = {name: shape.channels for name, shape in offered.items()}
        if any(given.get(name) != channels for name, channels in expected.items()):
            raise ConfigError(
                f"the neck expects maps with the channels {expected}, but {source} gives {given}; "
                f"leave input_shapes and in_features of the neck out, or set them to what the "
                f"backbone gives."
            )

    def _named_convs(self) -> list[tuple[str, nn.Module]]:
        return list(zip(self.in_features or (), self.convs, strict=True))

    def forward(
        self, inputs: Mapping[str, Float[Tensor, "n _ _ _"]]
    ) -> tuple[Float[Tensor, "n c _ _"], ...]:
        """Map the named maps and add the coarser levels.

        Args:
            inputs: (N, C, H, W) maps by name; those that are not in ``in_features`` are left alone.

        Returns:
            ``num_outs`` levels (N, out_channels, H, W), finest first.

        Raises:
            ConfigError: when a map of ``in_features`` is missing, or the neck is not connected.
        """
        if not self.is_connected:
            raise ConfigError(
                "the neck was built without input_shapes and does not know its backbone: call "
                "neck.connect(backbone.output_shape()) first, as DINO does, or give input_shapes."
            )
        named_convs = self._named_convs()
        _require([name for name, _ in named_convs], inputs, "the backbone's output")
        levels = [conv(inputs[name]) for name, conv in named_convs]
        feature = inputs[named_convs[-1][0]]
        for conv in self.extra_convs or ():
            feature = conv(feature)
            levels.append(feature)
        return tuple(levels)


def _level(
    out_channels: int,
    in_channels: int,
    *,
    kernel_size: int,
    norm_layer: nn.Module | None,
    activation: nn.Module | None,
    stride: int,
    dilation: int,
    groups: int,
    bias: bool,
) -> ConvNormAct:
    """Make the convolution of one level, with a norm and an activation of its own."""
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


def _by_stride(shapes: Mapping[str, ShapeSpec]) -> list[str]:
    """Names of maps, finest first; in their own order where a stride is not known."""
    strides = {name: shape.stride for name, shape in shapes.items()}
    if None in strides.values():
        return list(shapes)
    return sorted(strides, key=lambda name: strides[name] or 0)


def _check_count(in_features: Sequence[str], num_outs: int | None) -> int:
    """Give the number of levels, which must be enough for the maps in use."""
    if not in_features:
        raise ConfigError("ChannelMapper needs at least one name in in_features, got none.")
    if num_outs is None:
        return len(in_features)
    if num_outs < len(in_features):
        raise ConfigError(
            f"num_outs is {num_outs}, but in_features has {len(in_features)} maps "
            f"{list(in_features)}; raise num_outs or leave out maps."
        )
    return num_outs


def _require(names: Sequence[str], available: Mapping[str, object], where: str) -> None:
    """Raise when a name is not available."""
    missing = [name for name in names if name not in available]
    if missing:
        hint = did_you_mean(missing[0], available)
        raise ConfigError(
            f"in_features asks for {', '.join(map(repr, missing))}, which {where} does not have; "
            f"there is {', '.join(map(repr, available)) or 'nothing'}.{hint}"
        )
