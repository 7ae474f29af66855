"""What the parts of a detector tell each other when it is built, so that a config need not.

Backbone -> neck: the maps. Backbone -> detector: the statistics and the channel order of the images
that its weights expect. Detector -> position embedding: its width. Detector -> criterion: the
layers whose losses have weights.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import ConfigError
from detrex.modeling.backbone.preprocess import IMAGENET, Preprocess
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.neck import ChannelMapper

from .checks import check_agreement
from .criterion import expand_weight_dict

logger = logging.getLogger(__name__)

Statistic = Sequence[float] | Literal["auto"]
"""One value per channel, or ``"auto"`` for that of the backbone."""

_MEAN_TOLERANCE = 1.0
_STD_TOLERANCE = 0.02
"""Differences from the backbone's mean (in 0..255) and std (relative) that nobody would notice."""


def connect_neck(backbone: nn.Module, neck: nn.Module) -> None:
    """Tell a ``ChannelMapper`` what the backbone gives, or compare it with what it was built for.

    Other necks are left alone; a neck that was sized by hand goes with a backbone that does not
    publish its maps.

    Args:
        backbone: its ``output_shape()`` is read.
        neck: changed in place.

    Raises:
        ConfigError: the two do not fit together, with both sides in the message, or neither says
            what the maps are.
    """
    if not isinstance(neck, ChannelMapper):
        return
    who = f"the backbone {type(backbone).__name__}"
    shapes = published_shapes(backbone)
    if shapes is not None:
        neck.connect(shapes, who)
    elif not neck.is_connected:
        raise ConfigError(
            f"{who} does not say which maps it gives (output_shape), and the neck was not told: "
            "set input_shapes and in_features of the neck, or let the backbone publish its maps."
        )


def published_shapes(backbone: nn.Module) -> dict[str, ShapeSpec] | None:
    """Give the shape of each map by name, or None for a backbone that does not publish them."""
    output_shape = getattr(backbone, "output_shape", None)
    if not callable(output_shape):
        return None
    inherited = getattr(type(backbone), "output_shape", None) is Backbone.output_shape
    if inherited and not hasattr(backbone, "_out_features"):
        return None
    return dict(output_shape())


def size_position_embedding(position_embedding: nn.Module, embed_dim: int) -> None:
    """Set ``num_pos_feats`` of a sine embedding that was built with None to half of `embed_dim`.

    Raises:
        ConfigError: `embed_dim` is no multiple of four, sine and cosine of two axes.
    """
    if getattr(position_embedding, "num_pos_feats", 0) is not None:
        return
    if embed_dim % 4:
        raise ConfigError(
            f"embed_dim must be a multiple of 4 for a position embedding by sine and cosine of two "
            f"axes, got {embed_dim}."
        )
    position_embedding.num_pos_feats = embed_dim // 2  # type: ignore[assignment]


def weigh_losses(criterion: nn.Module, num_layers: int) -> None:
    """Give the losses of all layers the weight of their term; warn of a term that has none.

    Args:
        criterion: its ``weight_dict``, where it has one, is replaced by
            :func:`~detrex.modeling.dino.criterion.expand_weight_dict`.
        num_layers: decoder layers.
    """
    weights = getattr(criterion, "weight_dict", None)
    if not isinstance(weights, Mapping):
        return
    criterion.weight_dict = expand_weight_dict(weights, num_layers)  # type: ignore[assignment]
    if not weights or not isinstance(criterion, SetCriterion):
        return
    terms = [term for loss in criterion.losses for term in criterion.loss_terms.get(loss, ())]
    missing = [term for term in terms if term not in weights]
    if missing:
        logger.warning(
            "weight_dict has no weight for %s, which counts with 1; write 0 to switch a loss off.",
            ", ".join(missing),
        )


class PixelStatistics(NamedTuple):
    """How the detector normalises images, in the channel order that its backbone takes.

    Attributes:
        mean: one value per channel, in the image's unit.
        std: one value per channel.
        flips: whether the channels of an image are reversed first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: bool = False


def pixel_statistics(
    backbone: nn.Module, pixel_mean: Statistic, pixel_std: Statistic, input_format: str
) -> PixelStatistics:
    """Settle the statistics of images between config and backbone.

    Args:
        backbone: its ``preprocess`` is read, where it has one.
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
    offered: Preprocess | None = getattr(backbone, "preprocess", None)
    given = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
    auto = [name for name, values in given.items() if _is_auto(name, values)]
    if offered is None and auto:
        logger.warning(_nothing_offered(auto, backbone))
        offered = IMAGENET
    flips = bool(auto) and offered is not None and _orders_differ(offered, input_format)
    own_mean, own_std = (offered.pixel_mean, offered.pixel_std) if offered else ((), ())
    used = PixelStatistics(
        _settle(pixel_mean, own_mean, flips), _settle(pixel_std, own_std, flips), flips
    )
    stated: dict[str, int | None] = {
        "len(pixel_mean)": len(used.mean),
        "len(pixel_std)": len(used.std),
        f"the number of channels of {type(backbone).__name__}": len(own_mean) or None,
    }
    check_agreement(stated, "give one value per channel of the image")
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
    used: PixelStatistics, offered: Preprocess, backbone: nn.Module, input_format: str
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


def _is_near(used: PixelStatistics, offered: Preprocess) -> bool:
    means = zip(used.mean, offered.pixel_mean, strict=True)
    stds = zip(used.std, offered.pixel_std, strict=True)
    return all(abs(a - b) <= _MEAN_TOLERANCE for a, b in means) and all(
        abs(a - b) <= _STD_TOLERANCE * b for a, b in stds
    )
