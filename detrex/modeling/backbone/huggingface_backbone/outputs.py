"""Which maps of a network of transformers are taken: by stride, by its stages' names, by place."""

from collections.abc import Collection, Sequence

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.chosen_outputs import select_outputs
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.features.output_levels import OutputSpec, check_out_features

DEFAULT_STRIDES = (8, 16, 32)


def choose_outputs(
    spec: NetworkSpec,
    out_strides: Sequence[int] | None,
    out_features: Sequence[str] | None,
    out_indices: Sequence[int] | None,
    out_channels: int | None,
) -> OutputSpec:
    """Choose a network's maps; see `HuggingFaceBackbone`.

    Args:
        spec: the network.
        out_strides: strides of levels in pixels.
        out_features: names of levels, or of stages.
        out_indices: places of maps.
        out_channels: channels of levels that are computed; None for those of the network.

    Raises:
        TypeError, BackboneError: as of `select_outputs`.
    """
    stages = {feature.name: feature for feature in spec.features}
    if _names_stages(out_features, stages):
        names = check_out_features(out_features or (), stages, spec.name)
        if out_strides is not None or out_indices is not None:
            raise BackboneError(
                f"got out_features={names}, which are stages of {spec.name} themselves, beside "
                f"out_strides={out_strides!r} and out_indices={out_indices!r}: leave these out."
            )
        maps = [stages[name] for name in names]
        return OutputSpec.of(spec, maps, None, out_channels)
    if out_strides is None and out_features is None and out_indices is None:
        out_strides = DEFAULT_STRIDES
    return select_outputs(spec, out_strides, out_features, out_indices, out_channels)


def _names_stages(names: Sequence[str] | None, stages: Collection[str]) -> bool:
    if names is None or isinstance(names, str):
        return False
    return bool(list(names)) and all(isinstance(name, str) and name in stages for name in names)
