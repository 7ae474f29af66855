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
    if refusal := refused_strides(error):
        return refusal
    text = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def first_sentence(error: BaseException) -> str:
    """Say in one sentence what an error says; see `first_line`."""
    return with_full_stop(first_line(error))


def with_full_stop(text: str) -> str:
    """End a sentence, which may be a question already."""
    return text if text.endswith("?") else f"{text}."


def refused_strides(error: BaseException) -> str:
    """Say what detectron2's pyramids have against strides, of which they name two.

    Args:
        error: any error.

    Returns:
        One sentence without its full stop; empty where the error is another.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or frames[-1].f_code.co_name != "_assert_strides_are_log2_contiguous":
        return ""
    strides, caller = list(frames[-1].f_locals["strides"]), frames[-2].f_locals
    who, doubling = type(caller.get("self")).__name__, "each twice the one before"
    if "scale_factors" in caller:
        return (
            f"{who} would give levels of strides {strides}, and they must be {doubling}: change "
            "scale_factors, or take a map whose stride is a power of 2"
        )
    return (
        f"{who} takes maps of strides from fine to coarse, {doubling}, got {strides}: put "
        "in_features (or out_features, which they refer to) in this order, without a gap"
    )


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno})"
