import ast

import pytest
from detectron2.config import instantiate

from detrex.config import load_config
from detrex.config.frozen_weights import frozen_without_weights
from detrex.config.validation import misspelt_keys
from detrex.project.backbones import choose
from detrex.project.schedule import Machine, Statistics, plan
from detrex.project.template import DETECTORS, Side, config_text

STRANGE = ['cat"""', "dög", "a\\b", "new\nline", "{x} ${y}", "l" * 200]


def text_of(detector, tmp_path, backbone="resnet18", weights="none", classes="ab", **numbers):
    choice = choose(backbone, weights)
    statistics = Statistics(numbers.pop("images", 50), [480] * 50, [0.3])
    machine, pretrained = Machine("cpu", 0, 2), choice.weights is not None
    schedule = plan(statistics, detector, machine, pretrained=pretrained, **numbers)
    sides = {
        "train": Side("train.json", tmp_path / 'pic"tures'),
        "test": Side(str(tmp_path / "val.json"), tmp_path),
    }
    return config_text("my", detector, choice, schedule, sides, classes)


def test_config_text__is_a_config_without_remarks(tmp_path):
    text = text_of("retinanet", tmp_path, "resnet10t", classes=STRANGE)
    assert max(map(len, text.splitlines())) <= 250
    (tmp_path / "config.py").write_text(text)
    cfg = load_config(tmp_path / "config.py")
    assert [*misspelt_keys(cfg), *frozen_without_weights(cfg)] == []
    names = cfg.dataloader.train.dataset.names
    assert names.num_classes == len(STRANGE)
    assert names.json_file == str(tmp_path / "train.json")
    assert names.image_root == str(tmp_path / 'pic"tures')
    assert cfg.dataloader.test.dataset.names.json_file == str(tmp_path / "val.json")
    assert cfg.train.output_dir == str(tmp_path / "output")
    assert cfg.train.max_iter == 3750


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("name", ["resnet18", "torchvision/mobilenet_v2"])
def test_config_text__names_what_it_uses_and_no_more(tmp_path, detector, name):
    for weights in ("auto", "none"):
        tree = ast.parse(text_of(detector, tmp_path, name, weights))
        imported = {
            alias.asname or alias.name.partition(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert imported - used == set()


@pytest.mark.parametrize("images", [1, 40])
def test_config_text__schedule_of_the_shortest_run(tmp_path, images):
    text = text_of("retinanet", tmp_path, "resnet10t", images=images, epochs=1, batch_size=1)
    (tmp_path / "config.py").write_text(text)
    cfg = load_config(tmp_path / "config.py")
    multiplier = instantiate(cfg.lr_multiplier)
    assert cfg.train.max_iter == max(10, images)
    assert multiplier(1 - 1e-6) == pytest.approx(0.1)
    assert multiplier(0.5) == pytest.approx(1.0)


def test_config_text__pretrained_backbone_learns_slower(tmp_path):
    text = text_of("dino", tmp_path, weights="auto")
    assert "backbone_lr_factor" in text
    assert '(model_name="resnet18", weights=True, frozen_norm=True, freeze_at=2)' in text
    assert "backbone_lr_factor" not in text_of("dino", tmp_path)
