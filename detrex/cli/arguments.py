"""What stands behind options: numbers, lists and sizes."""

import argparse
from collections.abc import Callable
from typing import Any

from detrex.options import add_trust_option

LONGEST_SIDE = 100_000  # pixels; the numbers of values of larger images do not fit 64 bits


def add_config_arguments(
    parser: argparse.ArgumentParser, required: bool = True, further: str = ""
) -> None:
    """Add ``CONFIG [key=value ...] [--trust PACKAGE]`` to a command.

    Args:
        parser: the command's; gets ``config``, ``overrides`` and ``trust``.
        required: whether the config must be named.
        further: what else may stand there, for the help.
    """
    config = parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs=None if required else "?",
        help="a .py or .yaml file, or a config of the package such as "
        f"dino/dino_r50_4scale_12ep.py (`detrex train --list` shows them){further}",
    )
    config.completer = complete_configs  # type: ignore[attr-defined]  # argcomplete's
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="changes of the config, such as train.max_iter=1000",
    )
    add_trust_option(parser)


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says where the weights of a trained detector are, and from which score on it counts.

    Args:
        parser: the command's; gets ``weights``, ``config``, ``threshold`` and ``trust``.
    """
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint, in the place of SOURCE's")
    parser.add_argument("--config", metavar="CONFIG", help="the config of a checkpoint")
    parser.add_argument(
        "--threshold",
        type=typed(float, "0.5"),
        metavar="SCORE",
        help="least score of what is found, from 0 to 1 (0.5, or what a shared detector says)",
    )
    add_trust_option(parser)


def complete_configs(prefix: str, **_: Any) -> list[str]:
    """Give the configs of the package, and files and folders, whose names begin so.

    Args:
        prefix: what has been typed.
    """
    from argcomplete.completers import FilesCompleter

    from detrex.config.listing import SUFFIXES, config_names

    found = FilesCompleter(SUFFIXES)(prefix)
    return [*(name for name in config_names() if name.startswith(prefix)), *found]


def typed(read: Callable[[str], Any], example: str) -> Callable[[str], Any]:
    """Let a misread option say what was expected.

    Args:
        read: turns the text into a value, or raises ValueError or OverflowError.
        example: a text that it takes.

    Returns:
        A ``type`` for argparse.
    """

    def value(text: str) -> Any:
        try:
            return read(text)
        except (ValueError, OverflowError):
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


def parse_positive(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        ValueError: it is something else.
    """
    count = parse_count(text)
    if count == 0:
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
