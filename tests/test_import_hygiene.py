"""Importing does nothing but define names; each case is a fresh interpreter."""

import json
import subprocess
import sys

import pytest

OPTIONAL = {"timm", "transformers", "wandb", "cv2", "scipy", "matplotlib", "jaxtyping"}

PROBE = """
import json, logging, sys
before = set(sys.modules)
{statement}
modules = sorted(set(sys.modules) - before)
handlers = {{
    name: len(logger.handlers)
    for name, logger in logging.root.manager.loggerDict.items()
    if getattr(logger, "handlers", None)
}}
catalog = sys.modules.get("detectron2.data.catalog")
datasets = sorted(catalog.DatasetCatalog.list()) if catalog else []
registries = {{}}
for name in ("BACKBONE_REGISTRY", "META_ARCH_REGISTRY"):
    modeling = sys.modules.get("detectron2.modeling")
    if modeling and hasattr(modeling, name):
        registries[name] = sorted(key for key, _ in getattr(modeling, name))
print(json.dumps([modules, handlers, len(logging.root.handlers), datasets, registries]))
"""


def probe(statement):
    """Modules, handlers by logger, root handlers, datasets, registries after ``statement``."""
    run = subprocess.run(
        [sys.executable, "-W", "error:::detrex", "-c", PROBE.format(statement=statement)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 1, f"importing printed {lines[:-1]}"
    return json.loads(lines[0])


def top_level(modules):
    return {module.split(".")[0] for module in modules}


@pytest.fixture(scope="module")
def of_detectron2():
    """What detectron2's own packages load: backbones alone, and with what data and engine need."""
    return {
        "backbone": probe("import detectron2.modeling.backbone"),
        "all": probe("import detectron2.modeling, detectron2.data, detectron2.engine"),
    }


def test_probe__sees_what_is_loaded():
    modules, *_ = probe("import timm.layers")
    assert "timm" in top_level(modules)


def test_detrex__imports_nothing_else():
    modules, handlers, root_handlers, *_ = probe("import detrex")
    assert modules == ["detrex"]
    assert not handlers
    assert not root_handlers


def test_backbone__loads_no_more_than_detectron2(of_detectron2):
    expected, observed = of_detectron2["backbone"], probe("import detrex.modeling.backbone")
    extra = {module for module in set(observed[0]) - set(expected[0])}
    assert {module for module in extra if module.split(".")[0] != "detrex"} == set()
    assert not OPTIONAL & (top_level(observed[0]) - top_level(expected[0]))
    assert observed[1:] == expected[1:], "importing added a log handler or registered something"


@pytest.mark.parametrize(
    "package",
    [
        "layers",
        "config",
        "checkpoint",
        "utils",
        "data",
        "modeling",
        "modeling.dino",
        "modeling.ema",
        "engine",
    ],
)
def test_package__needs_nothing_optional_and_registers_nothing(package, of_detectron2):
    expected, observed = of_detectron2["all"], probe(f"import detrex.{package}")
    optional = {"timm", "transformers", "wandb", "cv2", "jaxtyping"}
    assert not optional & (top_level(observed[0]) - top_level(expected[0]))
    for handlers in (observed[1],):
        assert set(handlers) <= set(expected[1])
    assert observed[2] == expected[2]
    assert set(observed[3]) <= set(expected[3]), "importing registered a dataset"
    for name, entries in observed[4].items():
        assert set(entries) <= set(expected[4][name])


def test_layers__import_torch_alone():
    modules, *_ = probe("import detrex.layers")
    loaded = set(modules)
    assert "timm" not in loaded
    assert "detectron2.modeling" not in loaded
