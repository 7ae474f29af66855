"""Statistics of images: those that a backbone's weights expect, and those that a detector uses.

A backbone publishes them as ``backbone.preprocess``; a detector whose config says ``"auto"`` takes
them from there.
"""

import logging
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from torch import nn

from detrex.detectors import published_statistics
from detrex.errors import ConfigError
from detrex.modeling.consistency import check_consistent

logger = logging.getLogger(__name__)

Statistic = Sequence[float] | Literal["auto"]
"""One value per channel, or ``"auto"`` for that of the backbone."""

_MEAN_TOLERANCE = 1.0
_STD_TOLERANCE = 0.02
"""Differences from the backbone's mean (in 0..255) and std (relative) that nobody would notice."""

_DIGITS = 6
"""Decimals kept of a product with 255: what binary fractions add beyond is not in the source."""


@dataclass(frozen=True)
class PixelStatistics:
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
    def from_unit_range(cls, description: Mapping[str, Any]) -> "PixelStatistics":
        """Read the statistics of a description that gives them in 0..1, as timm's do.

        Args:
            description: its ``mean`` and ``std`` are read; what is left out is ImageNet's.

        Returns:
            The statistics in RGB, of as many channels as there are values.

        Raises:
            ConfigError: something else than numbers, or not one of each for each channel.
        """
        mean, std = (description.get(name) for name in ("mean", "std"))
        return cls(
            IMAGENET.pixel_mean if mean is None else _times_255("mean", mean),
            IMAGENET.pixel_std if std is None else _times_255("std", std),
        )

    def is_close_to(self, other: "PixelStatistics") -> bool:
        """Tell whether two are the same but for rounding; the order counts for three channels.

        Args:
            other: of as many channels.
        """
        ours, theirs = (s.pixel_mean + s.pixel_std for s in (self, other))
        same_order = self.channel_order == other.channel_order or len(self.pixel_mean) != 3
        pairs = zip(ours, theirs, strict=True)
        return same_order and all(abs(a - b) <= 1e-3 * abs(b) + 1e-3 for a, b in pairs)

    def with_channels(self, in_channels: int) -> "PixelStatistics":
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


IMAGENET = PixelStatistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""ImageNet's statistics in RGB: those of torchvision, and of most of timm."""

CAFFE = PixelStatistics((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR")
"""The statistics of detectron2's MSRA ResNets, whose first convolution holds the scale."""


class Normalization(NamedTuple):
    """How the detector normalises images, in the channel order that its backbone takes.

    Attributes:
        mean: one value per channel, in the image's unit.
        std: one value per channel.
        flips: whether the channels of an image are reversed first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: bool = False


def resolve_pixel_statistics(
    backbone: nn.Module, pixel_mean: Statistic, pixel_std: Statistic, input_format: str
) -> Normalization:
    """Settle the statistics of images between config and backbone.

    Args:
        backbone: its ``preprocess`` is read, or that of the network inside it, where there is one.
        pixel_mean: values by hand, in the order of the image's channels, or ``"auto"``.
        pixel_std: likewise.
        input_format: the order of the image's channels.

    Returns:
        The values by hand where there are some, else those of the backbone, and of ImageNet, with a
        warning, where it publishes none. Channels are flipped where ``"auto"`` is asked for and the
        image's order is not the backbone's.

    Raises:
        ConfigError: not one value per channel, or another word than ``"auto"``.
    """
    published: PixelStatistics | None = published_statistics(backbone)
    given = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
    auto = [name for name, values in given.items() if _is_auto(name, values)]
    if published is None and auto:
        logger.warning(_none_published(auto, backbone))
        published = IMAGENET
    flips = bool(auto) and published is not None and _orders_differ(published, input_format)
    own_mean, own_std = (published.pixel_mean, published.pixel_std) if published else ((), ())
    used = Normalization(
        _settle(pixel_mean, own_mean, flips), _settle(pixel_std, own_std, flips), flips
    )
    stated: dict[str, int | None] = {
        "len(pixel_mean)": len(used.mean),
        "len(pixel_std)": len(used.std),
        f"the number of channels of {type(backbone).__name__}": len(own_mean) or None,
    }
    check_consistent(stated, "give one value per channel of the image")
    if published is not None:
        _report(used, published, backbone, input_format)
    return used


def _is_auto(name: str, values: Statistic) -> bool:
    if isinstance(values, str) and values != "auto":
        raise ConfigError(f'{name} must be "auto" or one value per channel, got {values!r}.')
    return isinstance(values, str)


def _settle(values: Statistic, own: tuple[float, ...], flips: bool) -> tuple[float, ...]:
    """Give the backbone's own values for "auto", else those by hand in the backbone's order."""
    if isinstance(values, str):
        return own
    by_hand = tuple(float(value) for value in values)
    return by_hand[::-1] if flips else by_hand


def _none_published(auto: Sequence[str], backbone: nn.Module) -> str:
    taken = " and ".join(f"{name}={list(getattr(IMAGENET, name))}" for name in auto)
    return (
        f"{type(backbone).__name__} does not publish the statistics of its images "
        f"(backbone.preprocess), and the config leaves them to it: taking ImageNet's in RGB, "
        f"{taken}. Write those that its weights were trained with to be sure."
    )


def _orders_differ(published: PixelStatistics, input_format: str) -> bool:
    """Whether the image's order is the reverse of the backbone's; only colours have an order."""
    orders = {published.channel_order, input_format}
    return len(published.pixel_mean) == 3 and orders == {"RGB", "BGR"}


def _report(
    used: Normalization, published: PixelStatistics, backbone: nn.Module, input_format: str
) -> None:
    """Log a flip, and warn of values by hand that are not those of the backbone."""
    who, order = type(backbone).__name__, published.channel_order
    if used.flips:
        logger.info("Images come as %s and are flipped to the %s of %s.", input_format, order, who)
    unlike = not used.flips and _orders_differ(published, input_format)
    if unlike or not _is_near(used, published):
        logger.warning(
            "Images are normalised by hand-written pixel_mean %s and pixel_std %s, in %s; %s "
            'publishes %s and %s, in %s. Write "auto" to take these; leave it if the weights come '
            "from elsewhere.",
            *(list(used.mean), list(used.std), input_format),
            *(who, list(published.pixel_mean), list(published.pixel_std), order),
        )


def _is_near(used: Normalization, published: PixelStatistics) -> bool:
    means = zip(used.mean, published.pixel_mean, strict=True)
    stds = zip(used.std, published.pixel_std, strict=True)
    return all(abs(a - b) <= _MEAN_TOLERANCE for a, b in means) and all(
        abs(a - b) <= _STD_TOLERANCE * b for a, b in stds
    )


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
