"""One architecture: its feature maps, levels, sizes, freezing and weights, seen without data."""

from collections.abc import Sequence
from typing import Any

from detrex.catalog.descriptions import find_description, keep_description
from detrex.catalog.table import Entry, read_catalog
from detrex.errors import BackboneError, did_you_mean

_SNIPPET = """from detectron2.config import LazyCall as L
from detrex.modeling.backbone import {wrapper}

model.backbone = L({wrapper})(
    model_name="{name}", out_strides=(8, 16, 32){weights}
)"""


def find_entry(name: str, library: str | None = None) -> Entry:
    """Find an architecture in the catalog.

    Args:
        name: architecture, with or without a tag of timm.
        library: ``"timm"`` or ``"torchvision"``; when None, timm first.

    Returns:
        Its entry.

    Raises:
        BackboneError: there is no such architecture; near names are suggested.
    """
    catalog = read_catalog()
    architecture = name.partition(".")[0]
    for entry in catalog.entries:
        if entry.name == architecture and library in (None, entry.library):
            return entry
    names = {entry.name for entry in catalog.entries if library in (None, entry.library)}
    raise BackboneError(
        f"there is no architecture named {architecture!r}"
        f"{f' in {library}' if library else ''}.{did_you_mean(architecture, sorted(names))} "
        "`detrex backbones PATTERN` searches."
    )


def describe(entry: Entry, size: tuple[int, int]) -> dict[str, Any]:
    """Describe an architecture, from a network on the meta device where nobody has done it before.

    Args:
        entry: which one.
        size: height and width of an image in pixels.

    Returns:
        Plain values by name, for JSON.
    """
    facts = find_description(entry, size)
    if facts is None:
        facts = describe_anew(entry, size)
        keep_description(entry, size, facts)
    return facts


def describe_anew(entry: Entry, size: tuple[int, int]) -> dict[str, Any]:
    """Describe an architecture as `describe` does, whatever was found of it before."""
    from detrex.catalog.analysis import (
        OUT_STRIDES,
        build_on_meta,
        count_tiles,
        multiply_adds_for,
    )

    backbone = build_on_meta(entry.name, entry.library, out_strides=OUT_STRIDES)
    named = list(backbone.network.named_parameters())
    frozen = {
        freeze_at: sum(p.numel() for name, p in named if stage.holds(name) or not p.requires_grad)
        for freeze_at, stage in enumerate(backbone.stages, start=1)
    }
    derived = sum(p.numel() for p in backbone.parameters()) - entry_params(backbone)
    return {
        "name": entry.name,
        "library": entry.library,
        "kind": entry.kind,
        "params": entry_params(backbone),
        "params_derived": derived,
        "norm": entry.norm,
        "features": [
            {
                "source": feature.source,
                "channels": feature.channels,
                "stride": feature.stride,
                "layout": feature.layout,
            }
            for feature in backbone.spec.features
        ],
        "levels": [
            {
                "name": feature.name,
                "source": feature.source,
                "channels": feature.channels,
                "stride": feature.stride,
                "derivation": feature.derivation,
            }
            for feature in backbone.features
        ],
        "size": list(size),
        "fitted_size": list(backbone.fitted_size(size)),
        "tiles": count_tiles(backbone, size),
        "input_rule": str(backbone.input_size),
        "padding_constraints": backbone.padding_constraints,
        "gflops": round(multiply_adds_for(backbone, size) / 1e9, 2),
        "frozen_params": frozen,
        "pixel_mean": list(backbone.preprocess.pixel_mean),
        "pixel_std": list(backbone.preprocess.pixel_std),
        "weights": list(entry.tags),
        "licence": entry.licence,
        "config": config_of(entry),
    }


def entry_params(backbone: Any) -> int:
    """Count the parameters of a backbone's network, without the layers that derive levels."""
    return sum(parameter.numel() for parameter in backbone.network.parameters())


def config_of(entry: Entry) -> str:
    """Write lines of a LazyConfig that give a detector this backbone.

    Args:
        entry: a row of the catalog.
    """
    weights = ", weights=True" if entry.tags else ""
    return _SNIPPET.format(wrapper=entry.wrapper, name=entry.name, weights=weights)


def nodes_of(name: str) -> Sequence[Any]:
    """List the outermost nodes of torchvision's graph of an architecture.

    Args:
        name: architecture of torchvision.

    Returns:
        A feature for each, with ``source``, ``channels``, ``stride`` and ``layout``.

    Raises:
        BackboneError: there is no such architecture.
    """
    from detrex.modeling.backbone.torchvision_backbone.builder import build_classifier
    from detrex.modeling.backbone.torchvision_backbone.spec import inspect_network

    return inspect_network(build_classifier(name), f"torchvision's {name!r}").features
