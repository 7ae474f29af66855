"""A config held against `detrex.config.schema`: what is wrong, and what is left out filled in."""

import dataclasses
import functools
import inspect
import reprlib
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex.config.config import try_get_key
from detrex.config.lazy_call import is_call, plain
from detrex.config.lint import walk
from detrex.config.schema import ABSENT, ARGUMENTS, GROUPS, Rule, Train, default_of
from detrex.errors import ConfigError, did_you_mean

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_ANYTHING = Rule(infinite=True)
_MOST_SHOWN = 80
_NOTHING = object()


def check_values(cfg: Any) -> list[str]:
    """List the values of a config that are of a wrong type or out of range.

    Args:
        cfg: the whole config; parts that are not there are passed over.

    Returns:
        One sentence each, which begins with the key.

    Example:
        >>> check_values(OmegaConf.create({"train": {"max_iter": -5}}))
        ['train.max_iter=-5 cannot be used: expected a whole number of at least 1.']
    """
    mistakes: list[str] = []
    for path, kind in GROUPS.items():
        parent, _, name = path.rpartition(".")
        holder = peek(cfg, parent) if parent else cfg
        if isinstance(holder, DictConfig):
            mistakes += _check_group(path, kind, read(holder, name))
    mistakes += [m for part in ("model", "dataloader") for m in _check_arguments(cfg, part)]
    return mistakes


def settle(cfg: DictConfig) -> DictConfig:
    """Give a config's checked values their types, and ``train`` what it leaves out or sets to null.

    Args:
        cfg: changed in place: ``"1e-4"`` becomes 0.0001 where a number is wanted, 1e3 becomes 1000
            where a whole one is, and ``train.amp`` is there whether or not it was.

    Returns:
        ``cfg``.

    Raises:
        ConfigError: a value of ``train`` is of a wrong type or out of range.
    """
    for mistake in _check_group("train", Train, read(cfg, "train")):
        raise ConfigError(mistake)
    for path, kind in GROUPS.items():
        node = peek(cfg, path)
        if isinstance(node, DictConfig):
            _settle_group(node, kind, complete=kind is Train)
    return cfg


def misspelt_keys(cfg: Any) -> list[str]:
    """List keys of ``train`` that nothing reads and that are spelt like one that is read.

    Args:
        cfg: the whole config.

    Returns:
        One remark each; other keys that nothing reads are the user's own, and pass.

    Example:
        >>> misspelt_keys(OmegaConf.create({"train": {"max_iter": 9, "max_itr": 5}}))
        ["train.max_itr is no key that a run reads. Did you mean 'max_iter'?"]
    """
    return list(_misspelt("train", Train, peek(cfg, "train")))


def read(node: DictConfig | ListConfig, name: Any) -> Any:
    """Read one value of a config.

    Args:
        node: a part of a config.
        name: the key or the index.

    Returns:
        The value, with references followed; ``...`` where it is not there or a reference leads
        nowhere, which `detrex.config.lint` tells.
    """
    try:
        # `in` a config would resolve.
        is_there = isinstance(node, ListConfig) or name in node.keys()  # noqa: SIM118
        return node[name] if is_there else ...
    except (OmegaConfBaseException, RecursionError):
        return ...


def read_all(node: ListConfig) -> list[Any]:
    """Read the items of a list; see `read`."""
    return [] if node._is_none() else [read(node, index) for index in range(len(node))]


def peek(cfg: Any, name: str) -> Any:
    """Read a part of a config that may be wrong in any way.

    Args:
        cfg: the whole config.
        name: the part's dotted name.

    Returns:
        The part, None where it is not there, ``...`` where a reference leads nowhere.
    """
    try:
        return try_get_key(cfg, name)
    except (OmegaConfBaseException, RecursionError):
        return ...


def _check_group(path: str, kind: type, node: Any) -> Iterator[str]:
    if node is ... or node is None:
        return
    if not isinstance(node, DictConfig):
        # Other parts may be lists, or no calls, which is told elsewhere.
        if path.partition(".")[0] == "train":
            names = ", ".join([one.name for one in dataclasses.fields(kind)][:3])
            yield f"{path}={shown(node)} cannot be used: expected a group of keys, such as {names}."
        return
    for one in dataclasses.fields(kind):
        value = read(node, one.name)
        inner = f"{path}.{one.name}"
        if dataclasses.is_dataclass(one.type):
            yield from _check_group(inner, one.type, value)  # type: ignore[arg-type]
            yield from _check_keywords(inner, one, value)
        elif value is None and default_of(one) == ABSENT and not _rule(one).nullable:
            yield f"{inner} is null: expected {_expected(one)}."
        elif value is not None and value is not ... and not _is_built_later(inner, value):
            yield from _check_leaf(inner, kind, one, value)


def _is_built_later(path: str, value: Any) -> bool:
    """Whether a value is a call, which stands for what it gives; ``train`` holds none."""
    return is_call(value) and not path.startswith("train.")


def _check_leaf(path: str, kind: type, one: Any, value: Any) -> Iterator[str]:
    converted = _convert(kind, one, value)
    if converted is _NOTHING or not _rule(one).allows(converted):
        hint = did_you_mean(str(value), _rule(one).choices)
        yield f"{path}={shown(value)} cannot be used: expected {_expected(one)}.{hint}"


def _check_keywords(path: str, one: Any, value: Any) -> Iterator[str]:
    """Hold the keys of a group that are handed to a function against its keywords."""
    function = _rule(one).takes
    if function is None or not isinstance(value, DictConfig):
        return
    own = [inner.name for inner in dataclasses.fields(one.type)]
    parameters = inspect.signature(function).parameters.values()
    names = [*own, *(p.name for p in parameters if p.default is not p.empty)]
    for name in value:
        if name not in names:
            yield (
                f"{path}.{name!s} is no keyword of {function.__name__}()."
                f"{did_you_mean(str(name), names) or ' There are ' + ', '.join(own) + '.'}"
            )


def _convert(kind: type, one: Any, value: Any) -> Any:
    """Give a value its field's type by omegaconf's rules, or `_NOTHING` where it cannot have it."""
    if isinstance(value, float) and one.type is int and value.is_integer():
        value = int(value)  # 1e3
    if one.type is bool and isinstance(value, int) and value not in (0, 1):
        return _NOTHING  # omegaconf takes any number but 0 for true
    if one.type is str and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        return _NOTHING
    typed = _typed(kind)
    try:
        typed[one.name] = value
        converted = typed[one.name]
    except OmegaConfBaseException:
        return _NOTHING
    return plain(converted)


@functools.cache
def _typed(kind: type) -> DictConfig:
    return OmegaConf.structured(kind)


def _settle_group(node: DictConfig, kind: type, complete: bool) -> None:
    for one in dataclasses.fields(kind):
        value = read(node, one.name)
        is_broken = value is ... and OmegaConf.is_interpolation(node, one.name)
        if is_broken or (value is None and _rule(one).nullable):
            continue
        if dataclasses.is_dataclass(one.type):
            if not isinstance(value, DictConfig):
                _put(node, one.name, {})
            _settle_group(node[one.name], one.type, complete)  # type: ignore[arg-type]
        elif value is None or value is ...:
            default = default_of(one)
            if complete and default != ABSENT:
                _put(node, one.name, default)
        elif not isinstance(value, DictConfig):
            converted = _convert(kind, one, value)
            if converted is not _NOTHING and type(converted) is not type(value):
                _put(node, one.name, converted)


def _put(node: DictConfig, name: str, value: Any) -> None:
    OmegaConf.update(node, name, value, force_add=True, merge=False)


def _check_arguments(cfg: Any, part: str) -> Iterator[str]:
    for path, node in walk(peek(cfg, part), part, references=False):
        names: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
        for name in names:
            rule = _rule_of(path, name)
            if rule is _ANYTHING and OmegaConf.is_interpolation(node, name):
                continue
            value = read(node, name)
            values = read_all(value) if isinstance(value, ListConfig) else [value]
            if not all(map(rule.allows, values)):
                inner = f"{path}[{name}]" if isinstance(node, ListConfig) else f"{path}.{name!s}"
                wanted = " or ".join(rule.choices) or f"numbers {rule}".strip()
                hint = did_you_mean(str(value), rule.choices)
                yield f"{inner}={shown(value)} cannot be used: expected {wanted}.{hint}"


def _rule_of(path: str, name: Any) -> Rule:
    if name == "num_classes" and "backbone" in path:
        return _ANYTHING  # 0 takes the classifier away from a network of timm's
    return ARGUMENTS.get(str(name), _ANYTHING)


def _misspelt(path: str, kind: type, node: Any) -> Iterator[str]:
    if not isinstance(node, DictConfig):
        return
    fields = {one.name: one for one in dataclasses.fields(kind)}
    for name in node:
        one = fields.get(str(name))
        if one is None:
            hint = did_you_mean(str(name), fields)
            if hint:
                yield f"{path}.{name!s} is no key that a run reads.{hint}"
        elif dataclasses.is_dataclass(one.type) and _rule(one).takes is None:
            yield from _misspelt(f"{path}.{name!s}", one.type, read(node, name))  # type: ignore[arg-type]


def _rule(one: Any) -> Rule:
    return one.metadata["rule"]


def _expected(one: Any) -> str:
    rule = _rule(one)
    if rule.choices:
        return " or ".join(rule.choices[:4])
    if one.type in _WORDS:
        return f"{_WORDS[one.type]} {rule}".strip()
    if str(one.type).startswith("list"):
        return f"a list of {rule.length} numbers {rule}".strip()
    return "a group of keys"


def shown(value: Any) -> str:
    """Write a value of a config in a few characters.

    Args:
        value: anything.
    """
    text = reprlib.repr(plain(value))
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
