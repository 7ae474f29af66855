"""Statistics of the images that a detector normalises, settled between config and backbone."""

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import nn

from detrex.detectors import published_statistics
from detrex.errors import ConfigError
from detrex.modeling.backbone.preprocess import IMAGENET, Preprocess
from detrex.modeling.consistency import check_consistent

logger = logging.getLogger(__name__)

Statistic = Sequence[float] | Literal["auto"]
"""One value per channel, or ``"auto"`` for that of the backbone."""

_MEAN_TOLERANCE = 1.0
_STD_TOLERANCE = 0.02
"""Differences from the backbone's mean (in 0..255) and std (relative) that nobody would notice."""


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
    offered: Preprocess | None = published_statistics(backbone)
    given = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
    auto = [name for name, values in given.items() if _is_auto(name, values)]
    if offered is None and auto:
        logger.warning(_nothing_offered(auto, backbone))
        offered = IMAGENET
    flips = bool(auto) and offered is not None and _orders_differ(offered, input_format)
    own_mean, own_std = (offered.pixel_mean, offered.pixel_std) if offered else ((), ())
    used = Normalization(
        _settle(pixel_mean, own_mean, flips), _settle(pixel_std, own_std, flips), flips
    )
    stated: dict[str, int | None] = {
        "len(pixel_mean)": len(used.mean),
        "len(pixel_std)": len(used.std),
        f"the number of channels of {type(backbone).__name__}": len(own_mean) or None,
    }
    check_consistent(stated, "give one value per channel of the image")
    if offered is not None:
        _report(used, offered, backbone, input_format)
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


def _nothing_offered(auto: Sequence[str], backbone: nn.Module) -> str:
    taken = " and ".join(f"{name}={list(getattr(IMAGENET, name))}" for name in auto)
    return (
        f"{type(backbone).__name__} does not publish the statistics of its images "
        f"(backbone.preprocess), and the config leaves them to it: taking ImageNet's in RGB, "
        f"{taken}. Write those that its weights were trained with to be sure."
    )


def _orders_differ(offered: Preprocess, input_format: str) -> bool:
    """Whether the image's order is the reverse of the backbone's; only colours have an order."""
    orders = {offered.channel_order, input_format}
    return len(offered.pixel_mean) == 3 and orders == {"RGB", "BGR"}


def _report(
    used: Normalization, offered: Preprocess, backbone: nn.Module, input_format: str
) -> None:
    """Log a flip, and warn of values by hand that are not those of the backbone."""
    who, order = type(backbone).__name__, offered.channel_order
    if used.flips:
        logger.info("Images come as %s and are flipped to the %s of %s.", input_format, order, who)
    unlike = not used.flips and _orders_differ(offered, input_format)
    if unlike or not _is_near(used, offered):
        logger.warning(
            "Images are normalised by hand-written pixel_mean %s and pixel_std %s, in %s; %s "
            'publishes %s and %s, in %s. Write "auto" to take these; leave it if the weights come '
            "from elsewhere.",
            *(list(used.mean), list(used.std), input_format),
            *(who, list(offered.pixel_mean), list(offered.pixel_std), order),
        )


def _is_near(used: Normalization, offered: Preprocess) -> bool:
    means = zip(used.mean, offered.pixel_mean, strict=True)
    stds = zip(used.std, offered.pixel_std, strict=True)
    return all(abs(a - b) <= _MEAN_TOLERANCE for a, b in means) and all(
        abs(a - b) <= _STD_TOLERANCE * b for a, b in stds
    )
