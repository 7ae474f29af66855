"""Imports go one way: read from the source, so that those inside functions count too."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATHS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "detrex").rglob("*.py")
    if ROOT / "detrex" / "config" / "configs" not in path.parents
}
# Each may import what stands before it, and its own.
PACKAGES = (
    *(
        "errors",
        "files",
        "threads",
        "quiet",
        "options",
        "detectors",
        "checkpoint",
        "config",
        "utils",
    ),
    *("layers", "data", "report", "modeling", "catalog engine export"),
    *("inference", "benchmark project", "cli", "__main__"),
)
BACKBONE = "detrex.modeling.backbone"
ROOMS = (
    *("features", "inspection", "training", "weights", "wrapper"),
    "timm_backbone torchvision_backbone huggingface_backbone",
)


@cache
def imports(module):
    """Modules and names that a module imports, anywhere in its file: ``(module, name)``."""
    package = module if PATHS[module].name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(PATHS[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(up if node.level else []), *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add((whole, "") if whole in PATHS else (base, alias.name))
    return frozenset((target, name) for target, name in found if target in PATHS)


def _room(module, start):
    return module.removeprefix(f"{start}.").split(".")[0] if module.startswith(f"{start}.") else ""


def _against(order, start):
    """Imports of a room by one before it, or by another one beside it."""
    places = {room: place for place, rooms in enumerate(order) for room in rooms.split()}
    return [
        f"{module} imports {target}"
        for module in PATHS
        for target, _ in imports(module)
        if {here := _room(module, start), there := _room(target, start)} <= places.keys()
        and here != there
        and places[here] <= places[there]
    ]


def test_imports__have_no_cycle():
    graph = {module: {target for target, _ in imports(module)} - {module} for module in PATHS}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_imports__of_packages_go_one_way():
    assert _against(PACKAGES, "detrex") == []


def test_imports__of_the_backbones_rooms_go_one_way():
    assert _against(ROOMS, BACKBONE) == []


def test_imports__of_rooms_for_any_network_know_no_class():
    """Of the files around them they import none but the checks of arguments."""
    wrong = [
        f"{module} imports {target}"
        for module in PATHS
        for target, _ in imports(module)
        if _room(module, BACKBONE) in ROOMS[:-1]
        and target.startswith(f"{BACKBONE}.")
        and _room(target, BACKBONE) not in (*ROOMS[:-1], "arguments")
    ]
    assert wrong == []


def test_imports__take_no_private_name():
    wrong = [
        f"{module} imports {name} of {target}"
        for module in PATHS
        for target, name in imports(module)
        if name.startswith("_") and not name.startswith("__")
    ]
    assert wrong == []


def test_imports__are_read_inside_functions_too():
    assert (f"{BACKBONE}.weights.pretrained", "load_pretrained") in imports(f"{BACKBONE}.resnet")
