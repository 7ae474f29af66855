"""Building a network of another library, with its complaints turned into one helpful sentence."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detrex.errors import BackboneError, DetrexError, did_you_mean
from detrex.modeling.backbone.inspection.meta_run import lacks_values

_UNEXPECTED = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")

# What constructors of other libraries raise of keywords that they cannot do with.
_COMPLAINTS = (
    *(LookupError, AssertionError, ValueError, AttributeError, RuntimeError, ArithmeticError),
    TypeError,
)
_MOST_LISTED = 20


def build_with(
    who: str,
    builder: Callable[..., nn.Module],
    keywords: Mapping[str, Any],
    home: Callable[..., Any],
    also: Iterable[str] = (),
) -> nn.Module:
    """Call a builder, and explain a keyword that the network does not take.

    Args:
        who: name of the network.
        builder: called with `keywords`.
        keywords: what to build with, the user's own keywords among them; lists and dicts of a
            config reach the builder as Python's.
        home: a function of the module that defines the network's class.
        also: keywords that are taken by the builder itself.

    Returns:
        The network.

    Raises:
        TypeError: one of `keywords` is not known to the network; the message names near ones.
        BackboneError: the network could not be put together from what was given.
        NotImplementedError, RuntimeError: its constructor computes with values, on ``meta``.
    """
    keywords = {name: plain(value) for name, value in keywords.items()}
    try:
        return builder(**keywords)
    except DetrexError:
        raise
    except _COMPLAINTS as error:
        if isinstance(error, NotImplementedError) or lacks_values(error):
            raise  # the constructor computes with values, which the device `meta` lacks
        _explain_unknown_keyword(who, error, keywords, home, also)
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}"
        raise BackboneError(
            f"{who} could not be built{_shown(keywords)} ({reason}): mend these keywords, or "
            "leave out what it does not need."
        ) from error


def _explain_unknown_keyword(
    who: str,
    error: Exception,
    keywords: Mapping[str, Any],
    home: Callable[..., Any],
    also: Iterable[str],
) -> None:
    """Raise a `TypeError` with near names where a builder complains of a keyword of its user's."""
    found = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    owner, keyword = found.groups() if found else ("", "")
    if keyword not in keywords:
        return
    own = set(_parameters(owner, home)) - {*keywords}
    hint = did_you_mean(keyword, {*also, *own} - {*keywords})
    listed = sorted(own or also)
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    hint = hint or f" It takes {', '.join(listed[:_MOST_LISTED])}{more}."
    raise TypeError(f"{who} takes no keyword {keyword[:80]!r}.{hint}") from error


def _parameters(owner: str, home: Callable[..., Any]) -> list[str]:
    """Names of the parameters of a class or function in the module that defines `home`."""
    function = getattr(sys.modules[inspect.unwrap(home).__module__], owner, None)
    if function is None:
        return []
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def plain(value: Any) -> Any:
    """Give a list or dict of a config as Python's, anything else as it is."""
    return OmegaConf.to_container(value) if isinstance(value, ListConfig | DictConfig) else value


def _shown(keywords: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name}={value!r}"[:80] for name, value in keywords.items())[:200]
    return f" with {shown}" if shown else ""
