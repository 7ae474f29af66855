"""What stands behind options: numbers, lists and sizes."""

import argparse
from collections.abc import Callable
from typing import Any

LONGEST_SIDE = 100_000  # pixels; the numbers of values of larger images do not fit 64 bits


def typed(read: Callable[[str], Any], example: str) -> Callable[[str], Any]:
    """Let a misread option say what was expected.

    Args:
        read: turns the text into a value, or raises ValueError.
        example: a text that it takes.

    Returns:
        A ``type`` for argparse.
    """

    def value(text: str) -> Any:
        try:
            return read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected e.g. {example}, got {text!r}") from None

    return value


def parse_number(text: str) -> int:
    """Read ``"40M"``, ``"1.5B"``, ``"800k"`` or a plain number.

    Raises:
        ValueError: it is none of these.
    """
    units = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
    unit = units.get(text[-1:].lower(), 1)
    return round(float(text[:-1] if unit > 1 else text) * unit)


def parse_count(text: str) -> int:
    """Read a whole number of at least 0.

    Raises:
        ValueError: it is something else.
    """
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


def parse_integers(text: str) -> tuple[int, ...]:
    """Read integers with commas between them.

    Raises:
        ValueError: it is something else.
    """
    return tuple(int(part) for part in text.split(","))


def parse_size(text: str) -> tuple[int, int]:
    """Read ``"800x1333"``: height and width in pixels.

    Raises:
        ValueError: it is something else, or a side is not from 1 to 100000.
    """
    height, width = (int(side) for side in text.lower().split("x"))
    if not (0 < height <= LONGEST_SIDE and 0 < width <= LONGEST_SIDE):
        raise ValueError(text)
    return height, width
