"""``key=value`` from the command line onto a config, with misspelt keys caught."""

import copy
import inspect
import os
import re
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from detrex.config import find_config, load_config
from detrex.config.building import first_line
from detrex.config.lazy_call import is_call, parameters_of
from detrex.config.references import refuse_reference
from detrex.config.trust import check_named
from detrex.errors import ConfigError, did_you_mean


def apply_overrides(
    cfg: DictConfig, overrides: Sequence[str], trusted: Sequence[str] = ()
) -> DictConfig:
    """Set keys of a config from strings, all of them or, where one is wrong, none.

    A key must be there already, or be a parameter of the class or function that its part of the
    config calls. Any other key is taken for a misspelling; ``+key=value`` (or ``++``) adds it
    nevertheless.

    Args:
        cfg: the config, changed in place.
        overrides: strings in Hydra's grammar, such as ``"train.max_iter=100"``,
            ``"model.neck.in_features=[res3,res4]"`` or ``"+train.note=first"``.
        trusted: packages that they may call beside those of `detrex.config.trust`.

    Returns:
        ``cfg``.

    Raises:
        ConfigError: a string is no override, its key does not exist (near names are suggested), its
            value cannot be set there, or names a class or function that text may not; see
            `detrex.config.trust`.
    """
    for text in overrides:
        _check(cfg, text, trusted)
    trial = copy.deepcopy(cfg)
    for text in overrides:
        _set(trial, text)
    for text in overrides:
        _set(cfg, text)
    return cfg


def load_overridden(
    name: str | os.PathLike[str], overrides: Sequence[str] = (), trusted: Sequence[str] = ()
) -> DictConfig:
    """Find a config, load it, and set keys of it; see `apply_overrides`.

    Args:
        name: a file, or a config of the package; see `detrex.config.find_config`.
        overrides: ``key=value`` strings.
        trusted: packages that YAML and overrides may call beside those of `detrex.config.trust`.

    Raises:
        ConfigError: there is no such config, it fails to load, or an override cannot be set.
    """
    return apply_overrides(load_config(find_config(name), trusted), overrides, trusted)


def override(key: str, value: object) -> str:
    """Write ``key=value`` for a text such as a path, whatever characters it holds.

    Args:
        key: dotted name.
        value: its text is what is set.

    Raises:
        ConfigError: it would be read as a reference.
    """
    refuse_reference(str(value), key)
    text = re.sub(
        r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), str(value)
    )
    return f"{key}='{text}'"


def _set(cfg: DictConfig, text: str) -> None:
    try:
        LazyConfig.apply_overrides(cfg, [text.lstrip("+")])
    except (OmegaConfBaseException, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{_short(text)} cannot be set: {first_line(error)}.") from error


def _check(cfg: DictConfig, text: str, trusted: Sequence[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if text.startswith("-"):
        raise ConfigError(
            f"{text[:100]} stands among the key=value overrides: put options such as --resume "
            "before them."
        )
    try:
        text.encode()
        override = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{_short(text)} is not an override: expected key=value, e.g. train.max_iter=100 or "
            f"'model.neck.in_features=[res3,res4]' ({reason[:120]})."
        ) from error
    if override.is_delete():
        raise ConfigError(
            f"{_short(text)} asks to delete a key, which is not supported: set it, e.g. "
            f"{text[1:100]}=null."
        )
    if override.is_sweep_override():
        raise ConfigError(
            f"{_short(text)} gives several values: write a list as '{_as_list(text)}'."
        )
    if not override.key_or_group or override.package is not None or "/" in override.key_or_group:
        raise ConfigError(
            f"{_short(text)} names no key: expected key=value with a dotted key, e.g. "
            "train.max_iter=100."
        )
    check_named(override.value(), override.key_or_group, trusted)
    if not (override.is_add() or override.is_force_add()):
        _require_key(cfg, override.key_or_group)


def _require_key(cfg: DictConfig, key: str) -> None:
    """Walk down a dotted key, and say where it leaves the config."""
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        place = ".".join(parts[:depth])
        if not isinstance(node, DictConfig | ListConfig):
            raise ConfigError(
                f"{key} does not exist: {place} is {node!r}, which has no parts to set."
            )
        names = _names(node)
        if part not in names:
            if depth == len(parts) - 1 and _accepts(node, part):
                return
            where = f"{place} has" if place else "the config has"
            hint = did_you_mean(part, names) or f" There are {', '.join(names) or 'none'}."
            raise ConfigError(
                f"{key} does not exist: {where} no {part!r}.{hint} (+{key}=... adds a new key.)"
            )
        try:
            node = node[int(part)] if isinstance(node, ListConfig) else node[part]
        except OmegaConfBaseException:
            return  # a reference that only resolves once other overrides are applied


def _names(node: DictConfig | ListConfig) -> list[str]:
    if isinstance(node, ListConfig):
        return [str(index) for index in range(len(node))]
    return [str(name) for name in node]


def _accepts(node: DictConfig | ListConfig, name: str) -> bool:
    """Whether the callable that a node describes takes a keyword, beyond those the node states."""
    if not is_call(node):
        return False
    parameters = _parameters(node)
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if name in named:
        return True
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return passes_on and not did_you_mean(name, named)


def _parameters(call: Any) -> list[inspect.Parameter]:
    try:
        return list(parameters_of(call).values())
    except (TypeError, ValueError):
        return []


def _as_list(text: str) -> str:
    key, _, value = text[:100].partition("=")
    return f"{key}=[{value}]"


def _short(text: str) -> str:
    return repr(text if len(text) <= 150 else f"{text[:150]}...")
