"""What a network offers: the table of its features, and how each becomes an NCHW map.

A wrapper looks at its network once, writes a `FeatureTable`, and everything else (output names,
``output_shape()``, the order of the output dict, layouts) reads that table.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from detrex.errors import BackboneError

Layout = Literal["NCHW", "NHWC", "NLC"]
"""Axes of a raw feature: a map, a map with the channels last, or a sequence of tokens."""

MAX_PREFIX_TOKENS = 16
"""The most class and register tokens that may stand before the tokens of the image."""


@dataclass(frozen=True)
class Feature:
    """One feature of a network.

    Attributes:
        name: key in the output dict.
        source: where it is taken from: an index of timm, or a node of torchvision.
        channels: number of channels.
        stride: pixels of the input per pixel of the map.
        layout: axes of the tensor that the network gives.
        prefix_tokens: class and register tokens before those of the image, layout ``"NLC"`` only.
        made: what is done to the network's map to make this one, empty where nothing is.
    """

    name: str
    source: int | str
    channels: int
    stride: int
    layout: Layout = "NCHW"
    prefix_tokens: int = 0
    made: str = ""

    def __str__(self) -> str:
        facts = [f"{self.channels} channels", f"stride {self.stride}", *filter(None, [self.made])]
        return f"{self.name} = {self.source!r} ({', '.join(facts)})"

    def to_map(self, raw: torch.Tensor, image_size: Sequence[int]) -> torch.Tensor:
        """Turn the tensor that the network gives into a map.

        Args:
            raw: tensor of this feature, axes as in `layout`.
            image_size: height and width of the input image in pixels.

        Returns:
            Contiguous map of shape ``(N, channels, height, width)``.

        Raises:
            BackboneError: the tokens do not fill the grid that belongs to the image.
        """
        if self.layout == "NCHW":
            return raw
        if self.layout == "NHWC":
            return raw.permute(0, 3, 1, 2).contiguous()
        height, width = (size // self.stride for size in image_size)
        tokens = raw[:, self.prefix_tokens :]
        if tokens.shape[1] != height * width:
            raise BackboneError(
                f"feature {self.name!r} has {tokens.shape[1]} tokens for an image of "
                f"{tuple(image_size)}, expected {height} x {width}: use a size that is a multiple "
                f"of {self.stride}."
            )
        return tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()


@dataclass(frozen=True)
class FeatureTable:
    """The features that a backbone gives, in the order of its output dict."""

    features: tuple[Feature, ...]

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def __str__(self) -> str:
        return ", ".join(map(str, self))

    @property
    def names(self) -> list[str]:
        """Keys of the output dict, in order."""
        return [f.name for f in self]

    @property
    def channels(self) -> dict[str, int]:
        """Number of channels of each output."""
        return {f.name: f.channels for f in self}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of each output in pixels."""
        return {f.name: f.stride for f in self}

    def to_maps(
        self, raw: Mapping[str, torch.Tensor], image_size: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """Turn the tensors that the network gives into maps.

        Args:
            raw: tensor of each feature by name; other names are ignored.
            image_size: height and width of the input image in pixels.

        Returns:
            Maps ``(N, C, H, W)`` by name, in the order of the table.
        """
        return {f.name: f.to_map(raw[f.name], image_size) for f in self}


def resolve_indices(out_indices: Sequence[int], strides: Sequence[int], who: str) -> list[int]:
    """Check the indices that a user asks for, and count negative ones from the start.

    Args:
        out_indices: indices into the features of a network, in any order; -1 is the last one.
        strides: stride of every feature that the network has.
        who: name of the network, for the message.

    Returns:
        Indices from 0, in the order given.

    Raises:
        TypeError: something that is not a sequence of integers.
        BackboneError: no index, an index that is not there, or one that is there twice.
    """
    is_row = isinstance(out_indices, Iterable) and not isinstance(out_indices, str)
    given = list(out_indices) if is_row else []
    if not is_row or any(type(index) is not int for index in given):
        raise TypeError(
            f"out_indices must be a sequence of integers such as (1, 2, 3), got {out_indices!r}."
        )
    count = len(strides)
    offered = ", ".join(f"{index} (stride {stride})" for index, stride in enumerate(strides))
    if not given or any(not -count <= index < count for index in given):
        raise BackboneError(
            f"{who} has the feature indices {offered}, got out_indices={tuple(given)}: "
            "choose some of these, or count them from the end with -1."
        )
    absolute = [index % count for index in given]
    if len(set(absolute)) < len(absolute):
        raise BackboneError(
            f"out_indices={tuple(given)} names a feature of {who} more than once: "
            f"name each of {offered} at most once."
        )
    return absolute


def describe_feature(
    name: str,
    source: str,
    shapes: Sequence[Sequence[int]],
    image_sizes: Sequence[tuple[int, int]],
) -> Feature:
    """Find layout, channels and stride of a feature from its shapes.

    Args:
        name: key in the output dict.
        source: node that gives it.
        shapes: shape of the tensor for each of one or two image sizes.
        image_sizes: the image sizes, height and width in pixels.

    Returns:
        The row of the feature table.

    Raises:
        BackboneError: the tensor is not a map of the image in any known layout.
    """
    shape, image_size = shapes[0], image_sizes[0]
    if len(shape) == 3:
        stride, prefix = _token_grid(name, source, shape, image_size)
        return Feature(name, source, shape[2], stride, "NLC", prefix)
    if len(shape) != 4:
        raise BackboneError(
            f"node {source!r} gives a tensor of shape {tuple(shape)}, which is no feature map: "
            "choose a node before the pooling and the classifier."
        )
    layout = map_layout(shape, image_size)
    heights = [map_size(s, layout)[0] for s in shapes]
    map_stride = _stride(heights, [height for height, _ in image_sizes])
    if map_stride is None:
        raise BackboneError(
            f"node {source!r} gives a tensor of shape {tuple(shape)} whatever the size of the "
            "image, which is no feature map: choose a node before the pooling."
        )
    return Feature(name, source, shape[1 if layout == "NCHW" else 3], map_stride, layout)


def map_layout(shape: Sequence[int], image_size: Sequence[int]) -> Layout:
    """Tell NCHW from NHWC by which pair of axes has the proportions of the image.

    Args:
        shape: the four sizes of a feature map.
        image_size: height and width of the image.

    Returns:
        ``"NCHW"`` or ``"NHWC"``, the first when both would do.
    """
    aspect = math.log(image_size[0] / image_size[1])
    channels_first = abs(math.log(shape[2] / shape[3]) - aspect)
    channels_last = abs(math.log(shape[1] / shape[2]) - aspect)
    return "NCHW" if channels_first <= channels_last else "NHWC"


def map_size(shape: Sequence[int], layout: Layout) -> tuple[int, int]:
    """Give height and width of a map in cells.

    Args:
        shape: the four sizes of a feature map.
        layout: ``"NCHW"`` or ``"NHWC"``.
    """
    first = 2 if layout == "NCHW" else 1
    return int(shape[first]), int(shape[first + 1])


def _stride(map_heights: Sequence[int], image_heights: Sequence[int]) -> int | None:
    """Stride from how a map grows with the image, which holds for unpadded convolutions too."""
    if len(map_heights) == 1:
        return round(image_heights[0] / map_heights[0])
    grown = map_heights[1] - map_heights[0]
    return round((image_heights[1] - image_heights[0]) / grown) if grown > 0 else None


def _token_grid(
    name: str, source: str, shape: Sequence[int], image_size: Sequence[int]
) -> tuple[int, int]:
    """Patch size and number of prefix tokens of a sequence of ``shape[1]`` tokens."""
    height, width = image_size
    patches = [p for p in range(1, min(image_size) + 1) if height % p == width % p == 0]
    prefixes = {p: shape[1] - (height // p) * (width // p) for p in patches}
    fitting = {p: k for p, k in prefixes.items() if 0 <= k <= MAX_PREFIX_TOKENS}
    if not fitting:
        raise BackboneError(
            f"node {source!r}, asked for as {name!r}, gives {shape[1]} tokens for an image of "
            f"{tuple(image_size)}, which is no grid of square patches: choose another node."
        )
    stride = min(fitting, key=lambda p: fitting[p])
    return stride, fitting[stride]
