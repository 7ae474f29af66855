"""Which feature maps of a network are taken, by stride or by index, and the levels of them."""

import dataclasses
from collections.abc import Iterable, Sequence

from detrex.errors import BackboneError

from .feature_info import FeatureInfo
from .network_spec import NetworkSpec
from .output_levels import OutputSpec, plan_levels, requested_strides, sources_of

DEFAULT_OUT_INDICES = (0, 1, 2, 3)


def select_outputs(
    spec: NetworkSpec,
    out_strides: Sequence[int] | None,
    out_features: Sequence[str] | None,
    out_indices: Sequence[int] | None,
    out_channels: int | None = None,
) -> OutputSpec:
    """Choose a network's feature maps, and the levels over them where strides are asked for.

    Args:
        spec: the network.
        out_strides: strides of levels in pixels.
        out_features: names of levels; without either, maps are given by their index.
        out_indices: indices of maps, to give or to compute levels of; None or the object
            `DEFAULT_OUT_INDICES` leaves the choice to the network.
        out_channels: channels of levels that are computed; None for those of the network.

    Raises:
        TypeError: strides or indices that are not integers.
        BackboneError: one that is not there, or is given twice; or `out_channels` for nothing.
    """
    # Identity tells the default, which adapts, from an equal tuple of the user, which does not.
    is_given = out_indices is not None and out_indices is not DEFAULT_OUT_INDICES
    if out_strides is None and out_features is None:
        given = out_indices if is_given and out_indices is not None else _default_indices(spec)
        chosen = zip(given, features_at(given, spec), strict=True)
        maps = [dataclasses.replace(feature, name=f"p{asked}") for asked, feature in chosen]
        return OutputSpec.of(spec, maps, None, out_channels)
    features = list(spec.features)
    if is_given and out_indices is not None:
        features = features_at(out_indices, spec)
    there = [f.stride for f in features]
    strides = requested_strides(out_strides, out_features, there, spec.name) or []
    levels = plan_levels(strides, features, one_each=is_given and len(features) == len(strides))
    return OutputSpec.of(spec, sources_of(levels, spec.input_size), levels, out_channels)


def features_at(out_indices: Sequence[int], spec: NetworkSpec) -> list[FeatureInfo]:
    """Give the features that a user asks for by index.

    Args:
        out_indices: indices of maps, in any order; negative ones count from the end.
        spec: the network; the source of each feature is its index.

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
    by_index = {int(feature.source): feature for feature in spec.features}
    count = max(by_index) + 1
    listed = ", ".join(f"{index} (stride {f.stride})" for index, f in by_index.items())
    absolute = [index + count if index < 0 else index for index in given]
    if not given or any(index not in by_index for index in absolute):
        raise BackboneError(
            f"{spec.name} has the feature indices {listed}, got out_indices={tuple(given)}: "
            "choose some of these, or count them from the end with -1."
        )
    if len(set(absolute)) < len(absolute):
        raise BackboneError(
            f"out_indices={tuple(given)} names a feature of {spec.name} more than once: "
            f"name each of {listed} at most once."
        )
    return [by_index[index] for index in absolute]


def _default_indices(spec: NetworkSpec) -> tuple[int, ...]:
    """First four indices, or ends of the quarters of a network of one stride."""
    indices = [int(feature.source) for feature in spec.features]
    if len({feature.stride for feature in spec.features}) == 1 and len(indices) > 4:
        return tuple(indices[len(indices) * quarter // 4 - 1] for quarter in (1, 2, 3, 4))
    return tuple(indices[: len(DEFAULT_OUT_INDICES)])
