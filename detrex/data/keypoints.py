"""Keypoints of data sets: which of them change places in a mirror."""

import re
from collections.abc import Sequence

_SIDES = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)
_MIRRORED = {"left": "right", "right": "left", "l": "r", "r": "l"}


def hflip_indices(names: Sequence[str]) -> list[int]:
    """Number the keypoints anew for an image that is flipped from left to right.

    Args:
        names: of the keypoints, in order, such as ``["nose", "left_eye", "right_eye"]``; those
            whose names differ by left and right (or ``l`` and ``r``) change places.

    Returns:
        For each keypoint the index of its partner, or its own.

    Example:
        >>> hflip_indices(["nose", "left_eye", "right_eye"])
        [0, 2, 1]
    """
    number = {name.lower(): place for place, name in enumerate(names)}
    return [number.get(_mirrored(name.lower()), place) for place, name in enumerate(names)]


def _mirrored(name: str) -> str:
    return _SIDES.sub(lambda side: _MIRRORED[side.group()], name)
