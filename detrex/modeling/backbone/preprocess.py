"""The images that a backbone's weights expect: their statistics and the order of their channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How images are normalised: ``(image - pixel_mean) / pixel_std``, channel by channel.

    Attributes:
        pixel_mean: one value per channel, in the unit 0..255 of detectron2's images.
        pixel_std: one value per channel, in the same unit.
        channel_order: ``"RGB"`` or ``"BGR"``.
    """

    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    channel_order: str = "RGB"

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any], in_channels: int = 3) -> "Preprocess":
        """Read the statistics of timm's weights.

        Args:
            pretrained_cfg: timm's description of them; ImageNet's stand where it has none.
            in_channels: channels of the image; see `of_unit`.
        """
        mean = pretrained_cfg.get("mean") or _IMAGENET_MEAN
        std = pretrained_cfg.get("std") or _IMAGENET_STD
        return cls.of_unit(mean, std, in_channels)

    @classmethod
    def from_torchvision(cls, weights: Any = None, in_channels: int = 3) -> "Preprocess":
        """Read the statistics of torchvision's weights.

        Args:
            weights: member of a torchvision enum; None for ImageNet's, which all of them have been
                trained with.
            in_channels: channels of the image; see `of_unit`.
        """
        transforms = weights.transforms() if weights is not None else None
        mean = getattr(transforms, "mean", _IMAGENET_MEAN)
        std = getattr(transforms, "std", _IMAGENET_STD)
        return cls.of_unit(mean, std, in_channels)

    @classmethod
    def of_unit(
        cls, mean: Sequence[float], std: Sequence[float], in_channels: int = 3
    ) -> "Preprocess":
        """Take statistics of images in the unit 0..1.

        Args:
            mean: one value per channel.
            std: one value per channel.
            in_channels: channels of the image: one channel gets the average over those given,
                another number their values in turn.
        """
        return cls(_per_channel(mean, in_channels), _per_channel(std, in_channels))


def _per_channel(values: Sequence[float], in_channels: int) -> tuple[float, ...]:
    scaled = [round(255 * float(value), 4) for value in values]
    if in_channels == 1 and len(scaled) > 1:
        return (sum(scaled) / len(scaled),)
    return tuple(scaled[index % len(scaled)] for index in range(in_channels))


IMAGENET = Preprocess.of_unit(_IMAGENET_MEAN, _IMAGENET_STD)
"""RGB, the convention of torchvision and of most weights."""

CAFFE = Preprocess((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR")
"""BGR, the convention of Caffe's weights and of detectron2's model zoo."""
