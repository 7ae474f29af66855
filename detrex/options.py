"""Options that several programs have, in a module that imports nothing of size."""

import argparse


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust PACKAGE`` to a program's arguments, a list of names under ``trust``.

    Args:
        parser: the program's. See `detrex.config.trust` for what the packages are for.
    """
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package or module that YAML and overrides may call, too; may be given repeatedly",
    )


def positive(text: str) -> int:
    """Read a whole number of at least 1 from a command line.

    Args:
        text: what the user wrote.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
