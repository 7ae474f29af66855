import subprocess
import sys
from pathlib import Path

import pytest

from detrex.config import find_config, list_configs, load_config, try_get_key
from detrex.config.listing import config_names, configs_root, read_card
from detrex.errors import ConfigError

NAME = "dino/dino_r50_4scale_12ep.py"
HEADER = '''r"""A detector
over a network.

detector: DINO, 4 scales
backbone: ResNet-50
paper:    One, arXiv 1
command:  detrex train a.py \\\\
              --num-gpus 8
hardware: 8 GPUs
box AP:   49.25 on COCO val2017, as published by the
          authors; not retrained here
mask AP:  40 on COCO val2017, as published by the authors
"""
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("common/train.py", "dino/models/a.py", "dino/a.py", "dino/_b.py", "fcos/a.py"):
        file = tmp_path / "configs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEADER)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr("detrex.config.listing.configs_root", lambda: tmp_path / "configs")
    return tmp_path / "configs"


def test_listing__needs_no_torch():
    program = (
        "import sys; from detrex.config import find_config, list_configs; list_configs();"
        f"find_config({NAME!r}); print({{'torch', 'detectron2', 'omegaconf'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_config_names__are_those_that_run(root):
    assert config_names() == ["dino/a.py", "fcos/a.py"]


def test_read_card__reads_the_header(root):
    card = read_card("dino/a.py")
    assert (card.name, card.path) == ("dino/a.py", root / "dino" / "a.py")
    assert card.summary == "A detector over a network."
    assert (card.detector, card.backbone) == ("DINO, 4 scales", "ResNet-50")
    assert (card.paper, card.hardware) == ("One, arXiv 1", "8 GPUs")
    assert card.command.splitlines()[1].strip() == "--num-gpus 8"
    assert (card.box_ap, card.mask_ap, card.trained) == (49.25, 40.0, "the authors")
    assert card.remark.endswith("published by the authors; not retrained here")


def test_read_card__without_a_header(root):
    (root / "dino" / "a.py").write_text("x = 1\n")
    card = read_card("dino/a.py")
    assert (card.summary, card.detector, card.box_ap, card.trained) == ("", "", None, "")


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("", 2), ("DINO", 2), ("dino/", 1), ("fcos/*", 1), ("resnet-5", 2), ("zz", 0)],
)
def test_list_configs__by_a_pattern(root, pattern, count):
    assert len(list_configs(pattern)) == count


def test_list_configs__of_the_package_say_all_and_run():
    cards = list_configs()
    assert len(cards) > 30
    for card in cards:
        assert all((card.summary, card.detector, card.backbone, card.paper, card.remark)), card.name
        assert (card.box_ap is None) == (card.trained == ""), card.name
    published = {card.name: card.box_ap for card in cards if card.box_ap}
    assert published[NAME] == 49.2
    assert len(published) == 15


def test_list_configs__backbones_are_those_of_the_configs():
    """What a header says against what the config builds."""
    for name in ("fcos/fcos_dla34_fpn_1x.py", "dino/timm_example.py"):
        cfg = load_config(configs_root() / name)
        built = try_get_key(cfg.model, "backbone.bottom_up.model_name", "backbone.model_name")
        said = read_card(name).backbone.partition(" of timm")[0]
        assert said.replace("-", "").lower() == built


@pytest.mark.parametrize(
    "name", [NAME, NAME[:-3], f"configs/{NAME}", Path(NAME).name, Path(NAME).stem]
)
def test_find_config__of_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == configs_root() / NAME


def test_find_config__a_file_goes_first(root):
    here = Path("dino/a.py")
    here.parent.mkdir()
    here.touch()
    Path("run.yaml").touch()
    assert find_config("dino/a.py") == find_config("dino/a") == here
    assert find_config(root / "fcos" / "a.py") == root / "fcos" / "a.py"
    assert find_config("run") == Path("run.yaml")
    assert find_config("fcos/a") == root / "fcos" / "a.py"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dino/b.py", "Config file dino/b.py does not exist. Did you mean 'dino/a.py'"),
        ("fcos/aa", "Did you mean 'fcos/a'"),
        ("mine.pyy", "does not exist. Did you mean 'mine.py'"),
        ("a", "names 2 configs of the package: give one of dino/a.py and fcos/a.py"),
        ("zzzzzzz", "`detrex train --list` shows those of the package"),
        ("train.max_iter=3", "stands where the config is named"),
        ("..", "is a folder: name a .py or .yaml file in it"),
        ("../configs/dino/q.py", "does not exist"),
        ("a\0b\n", "Config file a\\x00b\\n does not exist"),
        ("x" * 5000, "xxx does not exist"),
        ("", "is a folder"),
    ],
)
def test_find_config__absent_is_one_sentence(root, name, told):
    Path("mine.py").touch()
    with pytest.raises(ConfigError) as error:
        find_config(name)
    assert told in str(error.value)
    assert len(str(error.value)) < 500


def test_configs_root__neither_place(monkeypatch, tmp_path):
    monkeypatch.setattr("detrex.config.listing.resources.files", lambda _: tmp_path / "a" / "b")
    with pytest.raises(ConfigError, match="reinstall the package"):
        configs_root()


def test_find_config__run_of_a_project_before_its_training(tmp_path):
    (tmp_path / "config.py").touch()
    with pytest.raises(
        ConfigError, match=r"output does not exist: `detrex train \S+/config.py` has"
    ):
        find_config(str(tmp_path / "output"))
