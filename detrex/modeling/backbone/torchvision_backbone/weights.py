"""torchvision's pretrained weights: enum members, where they are, and what is built with them."""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision

from detrex.checkpoint.download import has_promised_hash, hash_in_name
from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.backbone.preprocess import Preprocess
from detrex.modeling.backbone.weights.source import WeightsSource

TRANSFORMED = Preprocess((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
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
    return next(iter(choices)) if len(choices) else find(True, model_name)


def find(weights: Any, model_name: str) -> WeightsSource | None:
    """Find weights that torchvision has for a classifier.

    Args:
        weights: True for the default, an enum member, or its name with or without the enum's
            (``"IMAGENET1K_V2"``, ``"ResNet50_Weights.DEFAULT"``); an address or a copy of the file
            of one.
        model_name: classifier of torchvision.

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
        return _place(choices.DEFAULT)
    if isinstance(weights, torchvision.models.WeightsEnum) and not isinstance(weights, choices):
        raise BackboneError(
            f"{model_name} has the weights {', '.join(names(model_name))}, got {weights}: use one "
            f"of these.{did_you_mean(weights.name, names(model_name))}"
        )
    if isinstance(weights, choices):
        return _place(weights)
    name = str(weights).removeprefix(f"{choices.__name__}.")
    if name in names(model_name):
        return _place(choices[name])
    member = _member_of_file(str(weights), choices)
    return None if member is None else WeightsSource((str(weights),), member=member)


def builder_keywords(
    member: Any, model_name: str, in_channels: int, keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the keywords that torchvision's builder adds where weights are asked for.

    The weights of GoogLeNet and Inception want their images in other statistics, which the network
    itself sees to; those of transformers belong to one size of image.

    Args:
        member: a member of the enum of its weights, or None for none.
        model_name: classifier of torchvision.
        in_channels: channels of the image; statistics are changed of three only.
        keywords: the user's, which stand before the builder's.

    Returns:
        All keywords to build with.
    """
    if member is None:
        return dict(keywords)
    least = member.meta.get("min_size", (0, 0))
    added = {
        "transform_input": in_channels == _CHANNELS,
        "image_size": least[0],
        "input_size": least,
    }
    takes = builder_parameters(model_name)
    return {name: value for name, value in added.items() if name in takes} | dict(keywords)


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


def _place(member: Any) -> WeightsSource:
    return WeightsSource((member.url,), member=member)
