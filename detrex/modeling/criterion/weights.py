"""The names of losses: what is scored, and where it is taken.

A loss is named after its term, such as ``loss_bbox``, and a suffix: ``_{i}`` of decoder layer i
before the last, ``_enc`` of the encoder, and ``_dn``, ``_dn_{i}`` and ``_dn_enc`` of denoising
queries.
"""

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real

from detrex.errors import ConfigError, did_you_mean

_SUFFIX = re.compile(r"(_dn|_enc|_\d+)$")
_SUFFIXES = re.compile(r"(_dn)?(_enc|_\d+)?")
_EXAMPLES = ("", "_enc", "_0", "_dn", "_dn_0", "_dn_enc")


def loss_terms(names: Iterable[str]) -> list[str]:
    """Pick the names that say what a loss is and not, by a suffix, where it is taken."""
    return [name for name in names if not _SUFFIX.search(name)]


def check_weights(weights: Mapping[str, float], terms: Iterable[str]) -> dict[str, float]:
    """Refuse a weight that no loss would ever take.

    Args:
        weights: weights of losses by name.
        terms: the terms that a criterion knows; each may have any suffix.

    Returns:
        A copy of the weights.

    Raises:
        ConfigError: a name is that of no loss, or a weight is no finite number.
    """
    terms = list(terms)
    for name, weight in weights.items():
        if not any(_is_loss_of(term, str(name)) for term in terms):
            examples = [term + suffix for suffix in _EXAMPLES for term in terms]
            raise ConfigError(
                f"weight_dict has a weight for {name!r}, which is no loss; expected "
                f"{', '.join(terms)}, or one of these with a suffix such as _0, _enc, _dn or _dn_0."
                + did_you_mean(name, examples)
            )
        if not isinstance(weight, Real) or not math.isfinite(weight):
            raise ConfigError(
                f"weight_dict[{name!r}] is {weight!r}, expected a finite number; write 0 to switch "
                "a loss off."
            )
    return dict(weights)


def _is_loss_of(term: str, name: str) -> bool:
    return name.startswith(term) and _SUFFIXES.fullmatch(name[len(term) :]) is not None
