"""``detrex backbones show`` and ``nodes``: one architecture, looked at on the ``meta`` device."""

import json
from typing import Any

from detrex.cli.catalogue import Entry, read_catalogue
from detrex.errors import BackboneError, did_you_mean

_SNIPPET = """from detectron2.config import LazyCall as L
from detrex.modeling.backbone import {wrapper}

model.backbone = L({wrapper})(
    model_name="{name}", out_strides=(8, 16, 32){weights}
)"""


def show(name: str, library: str | None, size: tuple[int, int], as_json: bool) -> int:
    """Print what an architecture offers and needs.

    Args:
        name: architecture, with or without a tag of timm.
        library: ``"timm"`` or ``"torchvision"``; that of the catalogue when None, timm first.
        size: height and width of an image in pixels.
        as_json: print JSON.

    Returns:
        Exit status.

    Raises:
        BackboneError: there is no such architecture; near names are suggested.
    """
    entry = _entry(name, library)
    facts = facts_of(entry, size)
    print(json.dumps(facts, indent=1) if as_json else text_of(facts))
    return 0


def facts_of(entry: Entry, size: tuple[int, int]) -> dict[str, Any]:
    """Look at an architecture.

    Args:
        entry: which one.
        size: height and width of an image in pixels.

    Returns:
        Plain values, by the headings that `text_of` prints.
    """
    from detrex.modeling.backbone.survey import (
        OUT_STRIDES,
        build_to_look,
        count_tiles,
        multiply_adds_for,
    )

    backbone = build_to_look(entry.name, entry.library, out_strides=OUT_STRIDES)
    named = list(backbone.network.named_parameters())
    frozen = {
        freeze_at: sum(p.numel() for name, p in named if stage.holds(name) or not p.requires_grad)
        for freeze_at, stage in enumerate(backbone.stages, start=1)
    }
    made = sum(p.numel() for p in backbone.parameters()) - entry_params(backbone)
    return {
        "name": entry.name,
        "library": entry.library,
        "kind": entry.kind,
        "params": entry_params(backbone),
        "params_made": made,
        "norm": entry.norm,
        "features": [
            {
                "source": feature.source,
                "channels": feature.channels,
                "stride": feature.stride,
                "layout": feature.layout,
            }
            for feature in backbone.offered
        ],
        "levels": [
            {
                "name": feature.name,
                "source": feature.source,
                "channels": feature.channels,
                "stride": feature.stride,
                "made": feature.made,
            }
            for feature in backbone.features
        ],
        "size": list(size),
        "fitted_size": list(backbone.fitted_size(size)),
        "tiles": count_tiles(backbone, size),
        "input_rule": str(backbone.input_rule),
        "padding_constraints": backbone.padding_constraints,
        "gflops": round(multiply_adds_for(backbone, size) / 1e9, 2),
        "frozen_params": frozen,
        "pixel_mean": list(backbone.preprocess.pixel_mean),
        "pixel_std": list(backbone.preprocess.pixel_std),
        "weights": list(entry.tags),
        "licence": entry.licence,
        "config": _snippet(entry),
    }


def text_of(facts: dict[str, Any]) -> str:
    """Lay out what `facts_of` gave for a terminal."""
    total = facts["params"]
    lines = [
        f"{facts['name']} ({facts['library']}): {facts['kind']}, {total / 1e6:.1f}M parameters, "
        f"{facts['norm']} norm",
        "",
        "maps of the network",
        *(
            f"  {row['source']!s:<24} {row['channels']:>5} channels  stride {row['stride']:<3}"
            f"  {row['layout']}"
            for row in _shortened(facts["features"])
        ),
        "",
        "levels for out_strides=(8, 16, 32)",
        *(
            f"  {row['name']}  {row['channels']:>5} channels  from {row['source']}"
            f"{', ' + row['made'] if row['made'] else ''}"
            for row in facts["levels"]
        ),
    ]
    if facts["params_made"]:
        lines.append(f"  what is made has {facts['params_made'] / 1e6:.1f}M parameters more")
    height, width = facts["size"]
    tiles = f" as {facts['tiles']} tiles" if facts["tiles"] > 1 else ""
    lines += [
        "",
        "sizes",
        f"  {facts['input_rule']}; padding_constraints {facts['padding_constraints']}",
        f"  {height} x {width} runs at {' x '.join(map(str, facts['fitted_size']))}{tiles}: "
        f"{facts['gflops']:.1f} GFLOPs of the network",
        "",
        "freezing",
        *(
            f"  freeze_at={at}  {count / 1e6:>8.2f}M parameters, {count / total:>4.0%}"
            for at, count in facts["frozen_params"].items()
        ),
        "",
        "weights",
        f"  {', '.join(facts['weights']) or 'none published'}",
        f"  licence of the first: {facts['licence'] or 'not stated'}",
        f"  pixel_mean {facts['pixel_mean']}, pixel_std {facts['pixel_std']}, RGB",
        "",
        "config",
        *(f"  {line}" if line else "" for line in facts["config"].split("\n")),
    ]
    return "\n".join(lines)


def show_nodes(name: str, as_json: bool) -> int:
    """Print the nodes of torchvision's graph by the stride of their maps.

    Args:
        name: architecture of torchvision.
        as_json: print JSON.

    Returns:
        Exit status.

    Raises:
        BackboneError: there is no such architecture.
    """
    from detrex.modeling.backbone.torchvision_classifier import build_classifier
    from detrex.modeling.backbone.torchvision_nodes import look_for_nodes

    network = build_classifier(name)
    nodes = look_for_nodes(network, f"torchvision's {name!r}").nodes
    if as_json:
        rows = [
            {"node": n.source, "stride": n.stride, "channels": n.channels, "layout": n.layout}
            for n in nodes
        ]
        print(json.dumps(rows, indent=1))
        return 0
    last = {node.stride: node for node in nodes}
    for stride in sorted(last):
        print(f"stride {stride}")
        for node in nodes:
            if node.stride == stride:
                mark = "  <- out_strides takes this" if node is last[stride] else ""
                print(f"  {node.source!s:<28} {node.channels:>5} channels  {node.layout}{mark}")
    print(
        "These are the outermost modules; every operation within one can be named too: "
        f"TorchvisionBackbone.get_graph_node_names({name!r})"
    )
    return 0


def entry_params(backbone: Any) -> int:
    """Count the parameters of a backbone's network, without what is made of its maps."""
    return sum(parameter.numel() for parameter in backbone.network.parameters())


def _entry(name: str, library: str | None) -> Entry:
    catalogue = read_catalogue()
    architecture = name.partition(".")[0]
    for entry in catalogue.entries:
        if entry.name == architecture and library in (None, entry.library):
            return entry
    names = {entry.name for entry in catalogue.entries if library in (None, entry.library)}
    raise BackboneError(
        f"there is no architecture named {architecture!r}"
        f"{f' in {library}' if library else ''}.{did_you_mean(architecture, sorted(names))} "
        "`detrex backbones PATTERN` searches."
    )


def _snippet(entry: Entry) -> str:
    wrapper = "TimmBackbone" if entry.library == "timm" else "TorchvisionBackbone"
    weights = ", weights=True" if entry.tags else ""
    return _SNIPPET.format(wrapper=wrapper, name=entry.name, weights=weights)


def _shortened(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the middle of a long list of blocks that are alike."""
    alike = len({(row["channels"], row["stride"]) for row in rows}) == 1
    if not alike or len(rows) < 5:
        return rows
    return [rows[0], {**rows[1], "source": "..."}, rows[-1]]
