"""Which features of a network of timm are taken, and what is made of them."""

import dataclasses
from collections.abc import Iterable, Sequence

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.output_levels import (
    Level,
    check_out_strides,
    maps_and_levels,
    plan_levels,
)

from .spec import NetworkFacts

DEFAULT_OUT_INDICES = (0, 1, 2, 3)


def resolve_indices(out_indices: Sequence[int], strides: Sequence[int], who: str) -> list[int]:
    """Check the indices that a user asks for, and count negative ones from the start.

    Args:
        out_indices: indices into the features of a network, in any order; -1 is the last one.
        strides: stride of every feature that the network has.
        who: name of the network, for the message.

    Returns:
        Indices from 0, in the order given.

    Raises:
        TypeError: something that is not a sequence of integers.
        BackboneError: no index, an index that is not there, or one that is there twice.
    """
    is_row = isinstance(out_indices, Iterable) and not isinstance(out_indices, str)
    given = list(out_indices) if is_row else []
    if not is_row or any(type(index) is not int for index in given):
        raise TypeError(
            f"out_indices must be a sequence of integers such as (1, 2, 3), got {out_indices!r}."
        )
    count = len(strides)
    offered = ", ".join(f"{index} (stride {stride})" for index, stride in enumerate(strides))
    if not given or any(not -count <= index < count for index in given):
        raise BackboneError(
            f"{who} has the feature indices {offered}, got out_indices={tuple(given)}: "
            "choose some of these, or count them from the end with -1."
        )
    absolute = [index % count for index in given]
    if len(set(absolute)) < len(absolute):
        raise BackboneError(
            f"out_indices={tuple(given)} names a feature of {who} more than once: "
            f"name each of {offered} at most once."
        )
    return absolute


def select_outputs(
    name: str,
    facts: NetworkFacts,
    out_strides: Sequence[int] | None,
    out_indices: Sequence[int],
) -> tuple[list[FeatureInfo], list[Level] | None]:
    """Choose the network's maps, and the levels to be made of them where strides are asked for."""
    # Identity tells the default, which adapts, from an equal tuple of the user, which does not.
    is_given = out_indices is not None and out_indices is not DEFAULT_OUT_INDICES
    if out_strides is None:
        given = out_indices if is_given else _default_indices(facts)
        indices = resolve_indices(given, facts.strides, name)
        pairs = zip(given, indices, strict=True)
        return [
            dataclasses.replace(facts.feature_at(i, name), name=f"p{asked}") for asked, i in pairs
        ], None
    features = list(facts.features)
    if is_given:
        features = [
            facts.feature_at(i, name) for i in resolve_indices(out_indices, facts.strides, name)
        ]
    strides = check_out_strides(out_strides, [feature.stride for feature in features], name)
    levels = plan_levels(strides, features, one_each=is_given and len(features) == len(strides))
    return maps_and_levels(levels, facts.input_size)


def _default_indices(facts: NetworkFacts) -> tuple[int, ...]:
    """First four indices, or ends of the quarters of a network of one stride."""
    indices = [int(feature.source) for feature in facts.features]
    if len(set(facts.strides)) == 1 and len(indices) > 4:
        return tuple(indices[len(indices) * quarter // 4 - 1] for quarter in (1, 2, 3, 4))
    return tuple(indices[: len(DEFAULT_OUT_INDICES)])
