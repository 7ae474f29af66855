"""Mistakes in a config that show before anything is built.

A lazy call is a dict, which no type checker looks into; here each one's keywords are held against
the signature of what it will call.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex.config.lazy_call import is_call
from detrex.errors import did_you_mean

# Likeness from 0 to 1 above which a keyword is a misspelling: `model_nme` is, `in_chans` is not.
_MISSPELT = 0.9

_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

# The trainer hands the model to the optimizer's parameter groups once it is built.
_FILLED_IN_LATER = {
    "get_default_optimizer_params": frozenset({"model"}),
    "get_layer_decay_params": frozenset({"model"}),
}


_NAME_MAPS = ": say there which maps it gives, as in out_features=['res3', 'res4']."


def check_targets(cfg: Any) -> list[str]:
    """Hold every lazy call of a config against the signature of its target.

    Nothing is built; targets that are named by strings are imported.

    Args:
        cfg: a config, or a part of one with its root still attached.

    Returns:
        One sentence for each mistake: an unknown keyword (with near names), a missing argument, a
        target that cannot be found, a reference to nothing. Empty if there is none.

    Example:
        >>> from detectron2.config import LazyCall as L
        >>> check_targets(L(dict)(a=1))
        []
    """
    mistakes = []
    for path, node in walk(cfg):
        if isinstance(node, Exception):
            reason = _first_line(node)
            hint = _NAME_MAPS if reason.endswith("out_features' not found") else ""
            mistakes.append(f"{path} refers to something that is not there: {reason}{hint}")
        elif is_call(node):
            mistakes += _check_call(node, path)
    return mistakes


def lazy_calls(cfg: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """List the lazy calls in a config, the outermost first.

    Args:
        cfg: a config or a part of one.
        path: its dotted name, empty for the root.

    Yields:
        Dotted name and call.
    """
    for name, node in walk(cfg, path, references=False):
        if is_call(node):
            yield name, node


def walk(node: Any, path: str = "", *, references: bool = True) -> Iterator[tuple[str, Any]]:
    """Go through a config; what a reference leads to is passed over, for it stands elsewhere.

    Args:
        node: a config or a part of one.
        path: its dotted name, empty for the root.
        references: whether references are followed, to see which lead to nothing.

    Yields:
        Dotted name and dict or list, the outermost first; for a reference to nothing its error.
    """
    if not OmegaConf.is_config(node) or node._is_none():
        return
    yield path, node
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        is_item = isinstance(node, ListConfig)
        inner = f"{path}[{key}]" if is_item else f"{path}.{key!s}" if path else str(key)
        if OmegaConf.is_missing(node, key):
            continue
        if not OmegaConf.is_interpolation(node, key):
            yield from walk(node[key], inner, references=references)
        elif references:
            try:
                node[key]
            except (OmegaConfBaseException, RecursionError) as error:
                yield inner, error


def _check_call(node: DictConfig, path: str) -> Iterator[str]:
    try:
        target = node["_target_"]
    except OmegaConfBaseException:  # a reference to nothing, which `walk` gives as well
        return
    if isinstance(target, str):
        try:
            target = locate(target)
        except Exception as error:
            yield f"{path} calls {target!r}, which cannot be imported: {_first_line(error)}"
            return
    if not callable(target):
        yield f"{path}._target_={target!s:.80} cannot be called: expected a class or a function."
        return
    for key in node:
        if OmegaConf.is_missing(node, key):
            yield f"{path}.{key!s} is still to be given: its value is '???'."
    given = {str(key) for key in node if key != "_target_"}
    yield from (f"{path or 'config'}: {mistake}" for mistake in _signature_mistakes(target, given))


def _signature_mistakes(target: Callable[..., Any], given: set[str]) -> Iterator[str]:
    name = getattr(target, "__qualname__", repr(target))
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # Some builtins do not tell.
        return
    by_keyword = {key for key, parameter in parameters.items() if parameter.kind in _BY_KEYWORD}
    passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for key in sorted(given - by_keyword):
        # What is passed on to another function may be right, unless it is all but a name here.
        if not passes_on or difflib.get_close_matches(key, by_keyword, cutoff=_MISSPELT):
            yield f"{name}() has no argument {key!r}.{did_you_mean(key, by_keyword)}"
    later = _FILLED_IN_LATER.get(name, frozenset())
    for key in sorted(by_keyword - given - later):
        if parameters[key].default is inspect.Parameter.empty:
            yield f"{name}() needs the argument {key!r}, which is not given."


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
