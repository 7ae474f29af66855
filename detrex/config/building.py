"""Parts of a config made into objects, with what fails told in one sentence."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from torch.overrides import TorchFunctionMode

from detrex.errors import ConfigError, DetrexError


def build_part(node: Any, name: str, *, on_meta: bool = False) -> Any:
    """Make the object that a part of a config describes.

    Args:
        node: a lazy call.
        name: its place in the config, for messages.
        on_meta: build modules that hold shapes and no data; see `build_on_meta`.

    Returns:
        What it makes.

    Raises:
        ConfigError: a constructor refused what it got; the sentence says where, and the cause is
            chained.
        DetrexError: one of the package's own constructors did.
    """
    try:
        return build_on_meta(node) if on_meta else instantiate(node)
    except DetrexError:
        raise
    except Exception as error:  # constructors can fail in any way
        raise ConfigError(f"{name} cannot be built: {first_line(error)}{_place(error)}.") from error


def build_on_meta(call: Any) -> Any:
    """Build a module that holds shapes and no data.

    Args:
        call: a lazy call.

    Returns:
        The module in training mode, on the device ``meta``.
    """
    try:
        with torch.device("meta"):
            return instantiate(call)
    except RuntimeError as error:
        if "meta tensor" not in str(error):
            raise
    # Its constructor computes with values, as torchvision's RegNets and detectron2's ViT do.
    try:
        with torch.device("meta"), _SequencesOnCpu():
            return instantiate(call).to("meta")
    except RuntimeError as error:
        if "meta tensor" not in str(error):
            raise
    return instantiate(call).to("meta")


class _SequencesOnCpu(TorchFunctionMode):
    """Keep the numbers that constructors count with; parameters come from other functions."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.arange, torch.linspace, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def first_line(error: BaseException) -> str:
    """Say in one line what an error says.

    Args:
        error: any error.

    Returns:
        Its message without what follows the first line, or its type where it has none.
    """
    text = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno})"
