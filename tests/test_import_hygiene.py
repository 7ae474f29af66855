"""Importing does nothing but define names; each case is a fresh interpreter."""

import json
import subprocess
import sys

OPTIONAL = {"timm", "transformers", "wandb", "cv2", "scipy"}
# Names shapes in signatures, and loads further modules of numpy; a few milliseconds.
LIGHT = {"ipaddress", "jaxtyping", "numpy"}

PROBE = """
import json, logging, sys
before = set(sys.modules)
{statement}
modules = sorted(name for name, module in sys.modules.items() if module and name not in before)
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


def test_probe__sees_what_is_loaded():
    modules, *_ = probe("import wave")
    assert "wave" in modules


def test_detrex__imports_nothing_else():
    modules, handlers, root_handlers, *_ = probe("import detrex")
    assert modules == ["detrex"]
    assert not handlers
    assert not root_handlers


def test_detrex__has_its_subpackages_on_first_use():
    modules, *_ = probe("import detrex; assert detrex.layers.MLP; assert not hasattr(detrex, 'x')")
    assert "detrex.layers" in modules
    assert "detrex.modeling" not in modules


def test_backbone__loads_no_more_than_detectron2():
    expected = probe("import detectron2.modeling.backbone")
    observed = probe("import detrex.modeling.backbone")
    extra = {module for module in set(observed[0]) - set(expected[0])}
    assert top_level(extra) <= {"detrex"} | LIGHT
    assert observed[1:] == expected[1:], "importing added a log handler or registered something"


def test_packages__need_nothing_optional_and_register_nothing():
    """All of them in one interpreter, against what detectron2's own parts of the kind do.

    detectron2 loads OpenCV where it is there, so what nobody needs is made impossible to import.
    """
    modules, handlers, root_handlers, datasets, registries = probe(
        "sys.modules.update(dict.fromkeys(('cv2', 'wandb', 'transformers'))); "
        "import detrex.config, detrex.checkpoint, detrex.utils, detrex.data, detrex.modeling, "
        "detrex.modeling.dino, detrex.modeling.ema, detrex.engine"
    )
    expected = probe(
        "import detectron2.modeling, detectron2.data, detectron2.engine, detectron2.evaluation"
    )
    assert not OPTIONAL & (top_level(modules) - top_level(expected[0]))
    assert set(handlers) <= set(expected[1])
    assert root_handlers == expected[2]
    assert set(datasets) <= set(expected[3]), "importing registered a dataset"
    for name, entries in registries.items():
        assert set(entries) <= set(expected[4][name])


def test_layers__load_torch_alone():
    modules, *_ = probe("import detrex.layers")
    assert not {"timm", "detectron2.modeling", "detectron2.data"} & set(modules)
