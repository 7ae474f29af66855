"""Configs as YAML that `detrex.config.safe_yaml` reads back as they are, on any machine.

What no YAML holds, or only this machine has, is refused by its place in the config.
"""

import enum
import functools
import re
import sys
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import yaml
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException

from detrex.config.safe_yaml import FLOAT, PARTIAL, PYTHON_NAME
from detrex.config.trust import TRUSTED_PACKAGES, locate_trusted
from detrex.errors import ConfigError, first_line

_REFERENCE = re.compile(r"(\\*)\$\{")
_PLACE_OF_A_FILE = re.compile(r"/|~[\w.-]*/|\\\\|[A-Za-z]:[\\/]|file:", re.ASCII)
_LONGEST = 80


def resolved(cfg: DictConfig | ListConfig, where: str) -> Any:
    """Give a part of a config as plain containers, with values in the place of references.

    Args:
        cfg: the part, with its root still attached.
        where: its name, for messages.

    Returns:
        Containers for `yaml_text`; what a lazy call calls is a name.

    Raises:
        ConfigError: a reference leads nowhere, a value is missing, or one has no form in YAML.
    """
    try:
        value = OmegaConf.to_container(
            cfg, resolve=True, throw_on_missing=True, structured_config_mode=SCMode.INSTANTIATE
        )
    except (OmegaConfBaseException, RecursionError) as error:
        key = getattr(error, "full_key", None) or where
        raise ConfigError(f"{key} cannot be written down: {first_line(error, 200)}.") from error
    return _written(value, where)


def yaml_text(value: Mapping[str, Any]) -> str:
    """Write what `resolved` gave as YAML.

    Args:
        value: parts of a config by name.
    """
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )


def trust_needed(value: Any, where: str = "") -> list[str]:
    """List what a reader must trust beside the packages that any config may name.

    Args:
        value: what `resolved` gave.
        where: its place, for messages.

    Returns:
        Packages, and modules of the trusted ones, in alphabetical order.

    Raises:
        ConfigError: something is named that is refused whatever is trusted.
    """
    needed: set[str] = set()
    for path, name in _names(value, where):
        try:
            locate_trusted(name, path)
        except ConfigError:
            package = name.partition(".")[0]
            part = package if package not in TRUSTED_PACKAGES else name.rpartition(".")[0]
            locate_trusted(name, path, [part])
            needed.add(part)
    return sorted(needed)


def is_place(text: str) -> bool:
    """Tell a text that begins as the full path of a file does, of any system."""
    return _PLACE_OF_A_FILE.match(text) is not None


class _Name(str):
    """The name of a class or function that is a value."""


class _Partial(NamedTuple):
    function: _Name
    arguments: list[Any]
    keywords: dict[Any, Any]


class _Dumper(yaml.Dumper):
    """Quotes every text that the safe reader would take for a number; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _name_node(dumper: yaml.Dumper, name: _Name) -> yaml.Node:
    return dumper.represent_scalar(f"{PYTHON_NAME}{name}", "")


def _partial_node(dumper: yaml.Dumper, partial: _Partial) -> yaml.Node:
    function, arguments, keywords = partial
    state = (function, tuple(arguments), keywords, None)  # as functools.partial wants it
    return dumper.represent_mapping(PARTIAL, {"args": [function], "state": state})


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
_Dumper.add_representer(_Name, _name_node)
_Dumper.add_representer(_Partial, _partial_node)


def _written(value: Any, where: str, called: bool = False) -> Any:
    """Bring a value to a form that YAML has; `called`: a lazy call in its place is made."""
    if value is None or isinstance(value, bool | ShapeSpec):
        return value
    if isinstance(value, enum.Enum):
        return _enum(value, where, called)
    value = value.item() if isinstance(value, np.generic) else value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return _text(str(value), where)
    if isinstance(value, Mapping):
        return _mapping(value, where)
    if isinstance(value, list | tuple):
        return [_written(item, f"{where}[{i}]", called) for i, item in enumerate(value)]
    if isinstance(value, functools.partial):
        arguments = [_written(v, f"{where}[{i}]") for i, v in enumerate(value.args)]
        return _Partial(_named(value.func, where), arguments, _mapping(value.keywords, where))
    return _named(value, where)


def _mapping(value: Mapping[Any, Any], where: str) -> dict[Any, Any]:
    is_call = "_target_" in value
    written: dict[Any, Any] = {}
    for key, item in value.items():
        path = f"{where}.{key}"
        if not isinstance(key, str | int | float) or isinstance(key, enum.Enum):
            raise ConfigError(_refusal(path, key, "a key of YAML is a text or a number"))
        if key == "_target_" and not isinstance(item, str):
            written[key] = str(_named(item, path))
        else:
            written[key] = _written(item, path, is_call)
    return written


def _text(text: str, where: str) -> str:
    if is_place(text):
        raise ConfigError(
            f"{where}={text[:_LONGEST]!r} names a place on this machine, which no other one has: "
            "leave it out of the config."
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(_refusal(where, text, "it holds half of a character")) from None
    return _REFERENCE.sub(lambda found: f"{found[1]}{found[1]}\\${{", text)  # it is no reference


def _enum(value: enum.Enum, where: str, called: bool) -> Any:
    """Write a member of an enum as the call that gives it, where calls are made; else its value."""
    if isinstance(value, int | str):
        return _written(value.value, where)
    if not called:
        raise ConfigError(
            _refusal(where, value, "of an enum only what is an argument of a call can be written")
        )
    return {"_target_": str(_named(type(value), where)), "value": _written(value.value, where)}


def _named(value: Any, where: str) -> _Name:
    """Name a class or function, by the shortest name under which a program finds it."""
    if not callable(value) or not hasattr(value, "__qualname__"):
        raise ConfigError(
            _refusal(where, value, "write a lazy call, L(...)(...), that makes it of plain values")
        )
    module, name = str(value.__module__), value.__qualname__
    parts = module.split(".") if module != "__main__" else []
    for count in range(1, len(parts) + 1):
        home = ".".join(parts[:count])
        try:
            found = attrgetter(name)(sys.modules.get(home))
        except AttributeError:
            continue
        if found == value:
            return _Name(f"{home}.{name}")
    raise ConfigError(
        _refusal(where, value, "no other program finds it by its name: define it in a module")
    )


def _refusal(where: str, value: Any, why: str) -> str:
    shown = getattr(value, "__qualname__", None) or repr(value)
    shown = " ".join(shown.split())
    return (
        f"{where[-_LONGEST:]} is a {type(value).__name__}, {shown[:_LONGEST]}, which cannot be "
        f"written as YAML: {why}."
    )


def _names(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Go through the names of all that is called, or given as a function."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            path = f"{where}.{key}" if where else str(key)
            if key == "_target_":
                yield path, item
            else:
                yield from _names(item, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _names(item, f"{where}[{index}]")
    elif isinstance(value, _Partial):
        yield where, str(value.function)
        yield from _names(value.arguments, where)
        yield from _names(value.keywords, where)
    elif isinstance(value, _Name):
        yield where, str(value)
