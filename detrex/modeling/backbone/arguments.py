"""Arguments that the wrappers of both libraries share, checked."""

import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from detrex.errors import BackboneError

Source = Any
"""Weights as a user names them: True, a tag or an enum, a file, an address, tensors, or None."""


def check_in_channels(in_channels: int, keywords: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Check the number of an image's channels.

    Args:
        in_channels: a positive integer.
        keywords: what the library's builder is to be given besides.

    Raises:
        BackboneError: it is not, or timm's keyword for it is among `keywords`.
    """
    if "in_chans" in keywords:
        raise BackboneError(
            f"got in_chans={keywords['in_chans']!r}: the channels of the image are called "
            "in_channels here, in every wrapper."
        )
    if type(in_channels) is not int or in_channels < 1:
        raise BackboneError(f"in_channels must be a positive integer, got {in_channels!r}.")


def check_drop_path(keywords: Mapping[str, Any]) -> None:
    """Check the chance with which whole blocks are dropped, of which libraries take any number.

    Args:
        keywords: what the library's builder is to be given.

    Raises:
        BackboneError: it is not from 0 to below 1.
    """
    for name in ("drop_path_rate", "stochastic_depth_prob"):
        rate = keywords.get(name)
        if isinstance(rate, int | float) and not 0 <= rate < 1:
            raise BackboneError(f"{name} must be from 0 to below 1, got {rate!r}.")


def check_switches(**switches: bool) -> None:
    """Check keywords that are on or off; a text, such as ``"no"``, would count as on.

    Args:
        **switches: keyword to its value.

    Raises:
        TypeError: one is neither True nor False.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {_on_one_line(value)}.")


def one_way_to_weights(**ways: Source) -> Source:
    """Give the weights that a user asks for in one of several ways.

    Args:
        **ways: keyword to its value; None, False and an empty string ask for nothing.

    Returns:
        The value that asks for weights, or None.

    Raises:
        TypeError: ``pretrained`` is not True or False.
        BackboneError: two ask for weights.
    """
    if not isinstance(ways.get("pretrained", False), bool):
        raise TypeError(
            f"pretrained must be True or False, got {_on_one_line(ways['pretrained'])}: give a "
            "file, a tag or an address as weights."
        )
    asked = {
        name: way
        for name, way in ways.items()
        if not (way is None or way is False or (isinstance(way, str) and not way))
    }
    if "checkpoint_path" in asked:  # as in the original, a file stands before what is fetched
        asked.pop("pretrained", None)
    if len(asked) > 1:
        listed = " and ".join(f"{name}={_on_one_line(way)}" for name, way in asked.items())
        raise BackboneError(f"got {listed}: say once where the weights come from, by weights.")
    return next(iter(asked.values()), None)


def _on_one_line(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())
