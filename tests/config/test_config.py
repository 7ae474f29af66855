"""Configs are found from anywhere, and a failure names its cause and leaves nothing behind."""

import builtins
import os
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from detrex.config import config as config_module
from detrex.config import (
    get_config,
    get_detectron2_config,
    load_config,
    require_keys,
    try_get_key,
)
from detrex.errors import ConfigError


@pytest.fixture
def config_dir(tmp_path):
    files = {
        "base.py": "train = dict(max_iter=7)\n",
        "good.py": "from .base import train\ntrain.max_iter += 4\n",
        "imports_absent.py": "from .bas import train\n",
        "imports_failing.py": "from .fails import train\n",
        "fails.py": "train = dict()\ntrain['absent']\n",
        "syntax.py": "train = (\n",
        "needs_module.py": "import no_such_module\n",
        "nested.py": (
            "from detrex.config import get_config\ntrain = get_config('common/absent.py').train\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_load_config__good(config_dir):
    assert load_config(config_dir / "good.py").train.max_iter == 11


def test_load_config__accepts_str(config_dir):
    assert load_config(str(config_dir / "base.py")).train.max_iter == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("goood.py", r"goood\.py does not exist\. Did you mean 'good\.py'"),
        ("absent/good.py", r"nor does its folder"),
        (
            "imports_absent.py",
            r"imports_absent\.py cannot be loaded\..*bas\.py does not exist\..* 'base\.py'",
        ),
        ("imports_failing.py", r"imports_failing\.py cannot be loaded\. KeyError: 'absent'"),
        ("fails.py", r"fails\.py cannot be loaded\. KeyError: 'absent'"),
        ("syntax.py", r"SyntaxError: .*syntax\.py"),
        ("needs_module.py", r"ModuleNotFoundError: .*no_such_module"),
        ("nested.py", r"'common/absent\.py' is not available in detrex configs"),
    ],
)
def test_load_config__failure_names_cause_and_restores_import(config_dir, name, message):
    before = builtins.__import__
    with pytest.raises(ConfigError, match=message):
        load_config(config_dir / name)
    assert builtins.__import__ is before


def test_get_config__fresh_copy_each_time():
    first = get_config("common/train.py").train
    first.max_iter = 3
    assert get_config("common/train.py").train.max_iter == 90000


def test_get_config__unknown_name_suggests_near_one():
    with pytest.raises(ConfigError, match=r"not available in detrex configs\..*'common/train\.py'"):
        get_config("common/trian.py")


def test_get_config__from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert get_config("common/train.py").train.output_dir == "./output"


def test_get_detectron2_config__without_its_model_zoo_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2.model_zoo", None)  # as where it cannot be imported
    model = get_detectron2_config("common/models/cascade_rcnn.py").model
    model.roi_heads.num_classes = 3
    assert get_detectron2_config("common/models/cascade_rcnn.py").model.roi_heads.num_classes == 80


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "common/models/fcoss.py",
            r"in detectron2 configs\. Did you mean 'common/models/fcos\.py'",
        ),
        ("rtmdet", r"in detectron2 configs\. There are \d\d, such as "),
    ],
)
def test_get_detectron2_config__unknown(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        get_detectron2_config(name)
    assert len(str(caught.value)) < 500


def test_configs_root__packaged_first(tmp_path, monkeypatch):
    packaged = tmp_path / "detrex" / "config" / "configs" / "common"
    packaged.mkdir(parents=True)
    (packaged / "train.py").write_text("train = dict(max_iter=13)\n")
    (tmp_path / "configs" / "common").mkdir(parents=True)
    folders = {"detrex": tmp_path / "detrex", "detrex.config": tmp_path / "detrex" / "config"}
    monkeypatch.setattr(config_module.resources, "files", folders.__getitem__)
    assert get_config("common/train.py").train.max_iter == 13


def test_configs_root__missing_says_how_to_mend(tmp_path, monkeypatch):
    monkeypatch.setattr(config_module.resources, "files", lambda _: tmp_path / "detrex")
    with pytest.raises(ConfigError, match="reinstall the package"):
        get_config("common/train.py")


def test_configs__functions_are_importable():
    from detrex.config.configs.common.common_schedule import multistep_lr_scheduler

    assert multistep_lr_scheduler().warmup_length == 0


def test_configs__bring_no_second_package():
    # Tools that walk through packages would go from here to the checkout's, and on for ever.
    below = [
        module.name for module in pkgutil.iter_modules(import_module("detrex.config").__path__)
    ]
    assert "config" in below
    assert not {"detrex", "tests"} & {*below}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("a.b",), 3),
        (("absent", "a.b"), 3),
        (("a.none", "a.b"), None),
        (("absent", "a.absent"), "default"),
    ],
)
def test_try_get_key__first_that_is_there(keys, expected):
    cfg = OmegaConf.create({"a": {"b": 3, "none": None}})
    assert try_get_key(cfg, *keys, default="default") == expected


def test_load_config__long_failures_are_one_line(tmp_path):
    file = tmp_path / "config.py"
    file.write_text("raise ValueError('a\\nb' * 999)")
    with pytest.raises(ConfigError, match=r"cannot be loaded\. ValueError: a ba b") as caught:
        load_config(file)
    assert len(str(caught.value)) < 400 + len(str(file))


def test_try_get_key__under_a_list():
    assert try_get_key(OmegaConf.create({"a": []}), "a.b", default=3) == 3


@pytest.mark.parametrize("missing", ["b", "a.c", "a.d.e", "a.null"])
def test_require_keys__says_what_is_missing(missing):
    cfg = OmegaConf.create({"a": {"d": [1], "null": None}})
    require_keys(cfg, "a", "a.d")
    with pytest.raises(ConfigError, match=rf"the config has no '{missing}', which this program"):
        require_keys(cfg, "a", missing)


@pytest.mark.parametrize("text", ["~: 1", 'a: "${"', 'a: "' + "${" * 5000 + '"'])
def test_load_config__yaml_that_omegaconf_refuses(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be loaded") as info:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *(("fifo.yaml", "is no regular file"), ("fifo.py", "is no regular file")),
        *(("folder.py", "is no regular file"), ("loop.py", "cannot be read: Too many levels")),
        *(("a" * 300 + ".py", "cannot be read: File name too long"), ("\0.py", "cannot be read")),
        *(("\udcff.py", r"'\\udcff.py' does not exist"), ("a\nb.py", r"'a\\nb.py' does not exist")),
        ("exit.py", r"cannot be loaded\. SystemExit: 0"),
    ],
)
def test_load_config__what_is_no_config(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.yaml")
    os.mkfifo("fifo.py")
    os.mkdir("folder.py")
    os.symlink("loop.py", "loop.py")
    Path("exit.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match=message) as info:
        load_config(name)
    assert "\n" not in str(info.value)
