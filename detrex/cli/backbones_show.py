"""``detrex backbones show`` and ``nodes``: one architecture in words."""

import json
from typing import Any

from detrex.catalog.describe import describe, find_entry, nodes_of


def show(name: str, library: str | None, size: tuple[int, int], as_json: bool) -> int:
    """Print what an architecture gives and needs.

    Args:
        name: architecture, with or without a tag of timm.
        library: ``"timm"`` or ``"torchvision"``; that of the catalog when None, timm first.
        size: height and width of an image in pixels.
        as_json: print JSON.

    Returns:
        Exit status.

    Raises:
        BackboneError: there is no such architecture; near names are suggested.
    """
    facts = describe(find_entry(name, library), size)
    print(json.dumps(facts, indent=1) if as_json else text_of(facts))
    return 0


def text_of(facts: dict[str, Any]) -> str:
    """Lay out what `describe` gave for a terminal."""
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
            f"{', ' + row['derivation'] if row['derivation'] else ''}"
            for row in facts["levels"]
        ),
    ]
    if facts["params_derived"]:
        lines.append(f"  deriving them takes {facts['params_derived'] / 1e6:.1f}M parameters more")
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
    nodes = nodes_of(name)
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


def _shortened(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the middle of a long list of blocks that are alike."""
    alike = len({(row["channels"], row["stride"]) for row in rows}) == 1
    if not alike or len(rows) < 5:
        return rows
    return [rows[0], {**rows[1], "source": "..."}, rows[-1]]
