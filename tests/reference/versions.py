"""Tests that only newer versions of a library can pass, for a reason that lies in the library."""

from importlib.metadata import version

import pytest


def is_below(library: str, *least: int) -> bool:
    """Tell whether the installed version is lower; of major and minor."""
    return tuple(map(int, version(library).split(".")[: len(least)])) < least


def since(library: str, *least: int, reason: str) -> pytest.MarkDecorator:
    """Skip below a version."""
    return pytest.mark.skipif(is_below(library, *least), reason=reason)
