"""Values of a config that cannot be what their callables are annotated to take."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detrex.config.lazy_call import is_call
from detrex.config.lint import lazy_calls
from detrex.config.pixel_statistics import STATISTICS
from detrex.config.validation import read, read_all, shown

_NUMBERS = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
_MAPPINGS = (Mapping, dict)
_UNIONS = (typing.Union, types.UnionType)


def check_types(cfg: Any) -> list[str]:
    """Hold the plain values of every lazy call against the annotations of its target.

    Only what is certain is told: numbers, strings, truth values, None, sequences and mappings of
    them, and plain values where a module or a function is wanted; an annotation of any other kind
    takes everything.

    Args:
        cfg: a config, or a part of one with its root still attached.

    Returns:
        One sentence for each value of a wrong type.

    Example:
        >>> from detectron2.config import LazyCall as L
        >>> from detrex.layers import MLP
        >>> check_types(L(MLP)(input_dim="wide", hidden_dim=3, output_dim=3, num_layers=2))
        ["input_dim of MLP() must be int, got 'wide'."]
    """
    return [m for path, call in lazy_calls(cfg) for m in _mistakes(path, call)]


def _mistakes(path: str, call: DictConfig) -> Iterator[str]:
    target = read(call, "_target_")
    with suppress(Exception):  # a target that cannot be found is told by check_targets
        target = locate(target) if isinstance(target, str) else target
    hints = _hints(target)
    where = f"{path}." if path else ""
    for key in call:
        name = str(key)
        if name not in hints or OmegaConf.is_missing(call, key):
            continue
        value = read(call, key)
        if value == "auto" and name in STATISTICS:
            continue  # resolved before the detector is built
        if not _fits(value, hints[name]):
            owner = getattr(target, "__qualname__", repr(target))
            yield f"{where}{name} of {owner}() must be {_shown(hints[name])}, got {shown(value)}."


def _hints(target: Any) -> Mapping[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except Exception:  # annotations that name what is not there say nothing
        return {}


def _is_config(value: Any) -> bool:
    return isinstance(value, DictConfig | ListConfig)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value can be meant by an annotation; True where nothing certain can be said."""
    if value is ...:  # a reference to nothing is told by check_targets
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is type(None):
        return value is None
    if hint in _NUMBERS and isinstance(value, bool):
        return hint is bool
    if hint in _NUMBERS:
        return isinstance(value, _NUMBERS[hint]) or is_call(value)
    if origin in (Sequence, list, tuple):
        return _fits_sequence(value, [one for one in arguments if one is not Ellipsis])
    if origin in _MAPPINGS:
        return _fits_mapping(value, arguments)
    if origin is Callable or (inspect.isclass(hint) and issubclass(hint, nn.Module)):
        return not (isinstance(value, str | int | float | None) or _is_data(value))
    return True


def _fits_sequence(value: Any, items: list[Any]) -> bool:
    if isinstance(value, str | int | float | None):
        return False
    if isinstance(value, ListConfig) and len(items) == 1:
        return all(_fits(item, items[0]) for item in read_all(value))
    return is_call(value) or not isinstance(value, DictConfig)


def _fits_mapping(value: Any, arguments: tuple[Any, ...]) -> bool:
    if isinstance(value, str | int | float | ListConfig | None):
        return False
    if not isinstance(value, DictConfig) or is_call(value) or len(arguments) != 2:
        return True
    return all(_fits(read(value, key), arguments[1]) for key in value)


def _is_data(value: Any) -> bool:
    return _is_config(value) and not is_call(value)


def _shown(hint: Any) -> str:
    if typing.get_origin(hint) in _UNIONS:
        return " or ".join(_shown(one) for one in typing.get_args(hint))
    if hint is type(None):
        return "None"
    is_plain = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if is_plain else str(hint)
