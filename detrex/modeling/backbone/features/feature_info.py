"""The feature maps of a network: channels, stride and layout of each, and how it becomes NCHW."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from detrex.errors import BackboneError

from .coverage import Coverage

Layout = Literal["NCHW", "NHWC", "NLC"]
"""Axes of a raw feature: a map, a map with the channels last, or a sequence of tokens."""


@dataclass(frozen=True)
class FeatureInfo:
    """One feature map of a network, or one level over it.

    Attributes:
        name: key in the output dict.
        source: where it is taken from: an index of timm, or a node of torchvision.
        channels: number of channels.
        stride: pixels of the input per pixel of the map.
        layout: axes of the tensor that the network gives.
        prefix_tokens: class and register tokens before those of the image, layout ``"NLC"`` only.
        derivation: what is done to the network's map to make this one, empty where nothing is.
        coverage: zeros around an image of any size with which the map covers the whole of it; None
            where nothing helps.
    """

    name: str
    source: int | str
    channels: int
    stride: int
    layout: Layout = "NCHW"
    prefix_tokens: int = 0
    derivation: str = ""
    coverage: Coverage | None = field(default_factory=Coverage)

    def __str__(self) -> str:
        facts = [
            f"{self.channels} channels",
            f"stride {self.stride}",
            *filter(None, [self.derivation]),
        ]
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
class FeatureMaps:
    """Feature maps in the order of an output dict."""

    features: tuple[FeatureInfo, ...]

    def __iter__(self) -> Iterator[FeatureInfo]:
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
            Maps ``(N, C, H, W)`` by name, in their order.
        """
        return {f.name: f.to_map(raw[f.name], image_size) for f in self}
