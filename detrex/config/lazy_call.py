"""What a lazy call of a config calls, and with what."""

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def is_call(node: Any) -> bool:
    """Tell whether a part of a config is a lazy call."""
    return isinstance(node, DictConfig) and "_target_" in node


def target_of(call: DictConfig) -> Any:
    """Give the class or function that a lazy call will call."""
    target = call["_target_"]
    return locate(target) if isinstance(target, str) else target


def target_name(call: Any) -> str:
    """Give the short name of what a lazy call will call, of anything else that of its class."""
    with contextlib.suppress(OmegaConfBaseException):  # a reference to nothing
        if is_call(call):
            target = call["_target_"]
            return str(getattr(target, "__qualname__", str(target).rpartition(".")[2]))
    return type(call).__name__


def parameters_of(call: DictConfig) -> Mapping[str, inspect.Parameter]:
    """Give the signature of what a lazy call will call, by name of the parameter."""
    return inspect.signature(target_of(call)).parameters


def plain(value: Any) -> Any:
    """Give a list or dict of a config as Python's, references as written; else what it is."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
