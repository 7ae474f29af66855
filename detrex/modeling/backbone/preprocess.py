"""Statistics and channel order of the images that a backbone's weights were trained with.

A backbone publishes them as ``backbone.preprocess``; a detector whose config says ``"auto"`` takes
them from there.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detrex.errors import ConfigError

_DIGITS = 6
"""Decimals kept of a product with 255: what binary fractions add beyond is not in the source."""


@dataclass(frozen=True)
class Preprocess:
    """How images become what a network was trained on: ``(image - pixel_mean) / pixel_std``.

    Args:
        pixel_mean: one value per channel, in the unit 0..255 that detectron2's images have.
        pixel_std: one value per channel, above 0, in the same unit.
        channel_order: ``"RGB"`` or ``"BGR"``, the order that the network takes; without meaning
            unless there are three channels.

    Raises:
        ConfigError: the two have different numbers of values, or one of them is out of range.
    """

    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        for name in ("pixel_mean", "pixel_std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if len(self.pixel_mean) != len(self.pixel_std) or not self.pixel_mean:
            raise ConfigError(
                f"pixel_mean and pixel_std need one value per channel each, got "
                f"{list(self.pixel_mean)} and {list(self.pixel_std)}."
            )
        if min(self.pixel_std) <= 0:
            raise ConfigError(f"pixel_std must be above 0, got {list(self.pixel_std)}.")
        if self.channel_order not in ("RGB", "BGR"):
            raise ConfigError(f"channel_order must be RGB or BGR, got {self.channel_order!r}.")

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any] | None, in_channels: int) -> "Preprocess":
        """Read timm's description of pretrained weights.

        Args:
            pretrained_cfg: its ``mean`` and ``std`` are read, in 0..1; what is left out is
                ImageNet's, as in timm.
            in_channels: channels of the image.

        Returns:
            The statistics of `in_channels` channels.
        """
        cfg = pretrained_cfg or {}
        return _from_unit(cfg.get("mean"), cfg.get("std"), in_channels)

    @classmethod
    def from_torchvision(cls, weights: Any, in_channels: int) -> "Preprocess":
        """Read the transforms that belong to weights of torchvision.

        Args:
            weights: a member of a weights enum, or None for torchvision's ImageNet statistics,
                which a detection or a video network applies itself or all classifiers share.
            in_channels: channels of the image.

        Returns:
            The statistics of `in_channels` channels.
        """
        transforms = None if weights is None else weights.transforms()
        mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
        return _from_unit(mean, std, in_channels)

    def is_close_to(self, other: "Preprocess") -> bool:
        """Tell whether two are the same but for rounding; the order counts for three channels.

        Args:
            other: of as many channels.
        """
        ours, theirs = (s.pixel_mean + s.pixel_std for s in (self, other))
        same_order = self.channel_order == other.channel_order or len(self.pixel_mean) != 3
        pairs = zip(ours, theirs, strict=True)
        return same_order and all(abs(a - b) <= 1e-3 * abs(b) + 1e-3 for a, b in pairs)

    def with_channels(self, in_channels: int) -> "Preprocess":
        """Give the statistics for another number of channels.

        Args:
            in_channels: 1 takes the mean over the channels; any other number of them repeats the
                values in order, cut off where there are fewer.

        Returns:
            The statistics of `in_channels` channels.

        Example:
            >>> IMAGENET.with_channels(4).pixel_mean
            (123.675, 116.28, 103.53, 123.675)
        """
        if in_channels == len(self.pixel_mean):
            return self
        return replace(
            self,
            pixel_mean=_spread(self.pixel_mean, in_channels),
            pixel_std=_spread(self.pixel_std, in_channels),
        )


IMAGENET = Preprocess((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""ImageNet's statistics in RGB: those of torchvision, and of most of timm."""

CAFFE = Preprocess((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR")
"""The statistics of detectron2's MSRA ResNets, whose first convolution holds the scale."""


def _from_unit(
    mean: Sequence[float] | None, std: Sequence[float] | None, in_channels: int
) -> Preprocess:
    """Turn statistics in 0..1, None for ImageNet's, into those of 0..255."""
    pixel_mean = IMAGENET.pixel_mean if mean is None else _times_255("mean", mean)
    pixel_std = IMAGENET.pixel_std if std is None else _times_255("std", std)
    return Preprocess(pixel_mean, pixel_std).with_channels(in_channels)


def _times_255(name: str, values: Sequence[float]) -> tuple[float, ...]:
    is_row = isinstance(values, Iterable) and not isinstance(values, str)
    if not is_row or not all(isinstance(value, int | float) for value in values):
        raise ConfigError(
            f"{name} of the description of weights must be numbers in 0..1, one for each channel, "
            f"such as (0.5, 0.5, 0.5), got {reprlib.repr(values)}."
        )
    return tuple(round(255 * value, _DIGITS) for value in values)


def _spread(values: Sequence[float], count: int) -> tuple[float, ...]:
    if count == 1:
        return (round(sum(values) / len(values), _DIGITS),)
    return tuple(values[index % len(values)] for index in range(count))
