"""torchvision's pretrained weights: enum members, where they are, and what is built with them."""

import dataclasses
import functools
import inspect
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision

from detrex.checkpoint.download import has_promised_hash, hash_in_name
from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.backbone.weights.origins import wrapper_for
from detrex.modeling.backbone.weights.source import WeightsSource, find_source
from detrex.modeling.pixel_statistics import PixelStatistics

logger = logging.getLogger(__name__)

TRANSFORMED = PixelStatistics((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""What GoogLeNet and Inception make of ImageNet's statistics before their first convolution."""

_CHANNELS = 3


def names(model_name: str) -> list[str]:
    """List the names of a classifier's weights, oldest first, and ``"DEFAULT"``.

    Args:
        model_name: classifier of torchvision.
    """
    return [
        *(member.name for member in torchvision.models.get_model_weights(model_name)),
        "DEFAULT",
    ]


def first_weights(model_name: str) -> Any:
    """Give the oldest weights of a classifier, which ``pretrained=True`` has always meant.

    Args:
        model_name: classifier of torchvision.

    Returns:
        A member of its enum.

    Raises:
        BackboneError: torchvision has none for it.
    """
    choices = torchvision.models.get_model_weights(model_name)
    return next(iter(choices)) if len(choices) else published_weights(True, model_name)


def find_weights(weights: Any, model_name: str, in_channels: int = 3) -> WeightsSource:
    """Find where weights for a classifier of torchvision are; nothing is fetched.

    Args:
        weights: as in `published_weights`, or what `find_source` takes besides.
        model_name: classifier of torchvision.
        in_channels: channels of the image.

    Returns:
        Where they are; ``info`` is the enum member where they are torchvision's.

    Raises:
        TypeError, BackboneError: see `find_source` and `published_weights`.
    """
    return dataclasses.replace(
        find_source(
            *(weights, f"torchvision's {model_name!r}", names(model_name)),
            lambda: published_weights(weights, model_name, in_channels),
        ),
        hint=functools.partial(wrapper_for, library="torchvision", model_name=model_name),
    )


def published_weights(weights: Any, model_name: str, in_channels: int = 3) -> WeightsSource | None:
    """Find weights that torchvision has for a classifier.

    Args:
        weights: True for the default, an enum member, or its name with or without the enum's
            (``"IMAGENET1K_V2"``, ``"ResNet50_Weights.DEFAULT"``); an address or a copy of the file
            of one.
        model_name: classifier of torchvision.
        in_channels: channels of the image.

    Returns:
        Where they are; None where `weights` names none of torchvision's.

    Raises:
        BackboneError: an enum member of another network, or a network without weights.
    """
    choices = torchvision.models.get_model_weights(model_name)
    if weights is True:
        if not len(choices):
            raise BackboneError(
                f"torchvision has no weights for {model_name!r}: give a file or an address, or "
                "leave weights out."
            )
        weights = choices.DEFAULT
    if isinstance(weights, torchvision.models.WeightsEnum) and not isinstance(weights, choices):
        raise BackboneError(
            f"{model_name} has the weights {', '.join(names(model_name))}, got {weights}: use one "
            f"of these.{did_you_mean(weights.name, names(model_name))}"
        )
    if isinstance(weights, choices):
        return _source(weights, model_name, in_channels)
    name = str(weights).removeprefix(f"{choices.__name__}.")
    if name in names(model_name):
        return _source(choices[name], model_name, in_channels)
    member = _member_of_file(str(weights), choices)
    if member is None:
        return None
    source = _source(member, model_name, in_channels)
    return dataclasses.replace(source, addresses=(str(weights),))


def builder_keywords(
    member: Any, model_name: str, in_channels: int, keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the keywords that torchvision's builder adds where weights are asked for.

    The weights of GoogLeNet and Inception want their images in other statistics, which the network
    itself sees to; those of transformers belong to one size of image.

    Args:
        member: a member of the enum of its weights; anything else for none.
        model_name: classifier of torchvision.
        in_channels: channels of the image; statistics are changed of three only.
        keywords: the user's, which stand before the builder's.

    Returns:
        All keywords to build with.
    """
    if not isinstance(member, torchvision.models.WeightsEnum):
        return dict(keywords)
    least = member.meta.get("min_size", (0, 0))
    added = {
        "transform_input": in_channels == _CHANNELS,
        "image_size": least[0],
        "input_size": least,
    }
    takes = builder_parameters(model_name)
    return {name: value for name, value in added.items() if name in takes} | dict(keywords)


def warn_of_transform(source: WeightsSource, model_name: str, keywords: Mapping[str, Any]) -> None:
    """Warn where a network may change the statistics of its images, and nothing tells whether.

    Args:
        source: where its weights are.
        model_name: classifier of torchvision.
        keywords: what it is built with.
    """
    is_torchvisions = isinstance(source.info, torchvision.models.WeightsEnum)
    if is_torchvisions or "transform_input" in keywords:
        return
    if "transform_input" in builder_parameters(model_name):
        logger.warning(
            "%s: whether the weights' network changed the statistics of its images is not in a "
            "file: give transform_input=True where it began from torchvision's own weights",
            model_name,
        )


def builder_parameters(model_name: str) -> tuple[str, ...]:
    """List the parameters of a classifier's class."""
    built = inspect.unwrap(torchvision.models.get_model_builder(model_name)).__annotations__[
        "return"
    ]
    return tuple(inspect.signature(built).parameters)


def _member_of_file(source: str, choices: Any) -> Any:
    """Recognise published weights by the name of their file, and by its hash where it has one."""
    for member in choices:
        is_named = Path(source).name == Path(member.url).name
        if source == member.url or (is_named and _keeps_its_promise(Path(source))):
            return member
    return None


def _keeps_its_promise(file: Path) -> bool:
    """Whether a file is there, and has the hash that its name carries, if any."""
    if hash_in_name(file.name):
        return has_promised_hash(file)
    return os.path.isfile(file)


def _source(member: Any, model_name: str, in_channels: int) -> WeightsSource:
    if in_channels != _CHANNELS and "transform_input" in builder_parameters(model_name):
        statistics = TRANSFORMED
    else:
        transforms = member.transforms()
        own = {name: getattr(transforms, name, None) for name in ("mean", "std")}
        statistics = PixelStatistics.from_unit_range(own)
    return WeightsSource((member.url,), info=member, statistics=statistics)
