"""Classes as users name them, by name or by index."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from detrex.errors import ConfigError, did_you_mean


def name_of(class_names: Sequence[str], label: int) -> str:
    """Name a class; one that has no name is called ``"class 3"``."""
    return class_names[label] if 0 <= label < len(class_names) else f"class {label}"


def wanted_labels(
    classes: Iterable[str | int] | str | int | None, class_names: Sequence[str]
) -> frozenset[int] | None:
    """Find the class indices that a user asks for.

    Args:
        classes: one name or index or several; None for all classes.
        class_names: the detector's, by index; may be empty where nothing tells them.

    Returns:
        The indices; None for all.

    Raises:
        ConfigError: there is no such class; near names are suggested.
    """
    if classes is None:
        return None
    several: Any = classes.tolist() if isinstance(classes, np.ndarray | Tensor) else classes
    if isinstance(several, str | bytes) or not isinstance(several, Iterable):
        several = [several]
    return frozenset(label for wanted in several for label in _labels(wanted, class_names))


def _labels(wanted: object, class_names: Sequence[str]) -> list[int]:
    """One index, or those of all classes that share a name."""
    if isinstance(wanted, str) and wanted in class_names:
        return [label for label, name in enumerate(class_names) if name == wanted]
    text = str(wanted)
    is_whole = isinstance(wanted, str | Integral) and not isinstance(wanted, bool)
    is_index = is_whole and text.isascii() and text.isdecimal()
    if is_index and (int(text) < len(class_names) or not class_names):
        return [int(text)]
    if not class_names:
        raise ConfigError(
            f"classes={wanted!r:.60} is no index of a class, and nothing tells this detector's "
            "class names: give whole numbers from 0."
        )
    raise ConfigError(
        f"classes={wanted!r:.60} is none of the detector's {len(class_names)} classes, such as "
        f"{', '.join(class_names[:3])}: give names, or indices from 0 to {len(class_names) - 1}."
        + did_you_mean(text, class_names)
    )
