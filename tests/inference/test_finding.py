import pickle
import shutil

import pytest
import torch
from omegaconf import OmegaConf

from detrex.checkpoint.reading.sharded_folders import REST
from detrex.errors import ConfigError
from detrex.inference.finding import PICKLE, find_source, run_checkpoints


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained / "run", tmp_path / "run")


def test_find_source__a_runs_folder_its_best_then_its_last(run):
    last = str(run / "model_final.pth")
    assert find_source(run).weights == (last,)
    assert find_source(str(run / "config.yaml")).weights == (last,)
    torch.save({"model": {}}, run / "model_best.pth")
    assert find_source(run).weights == (str(run / "model_best.pth"), last)
    assert find_source(run, weights=run / "other.pth").weights == (str(run / "other.pth"),)


def test_run_checkpoints__a_best_in_parts(run):
    parts = run / "model_best.dcp"
    parts.mkdir()
    (parts / ".metadata").touch()
    torch.save({"model": {}}, parts / REST)
    assert run_checkpoints(run)[0] == str(parts)


def test_find_source__a_best_of_another_run_is_not_taken(run):
    (run / "run.json").write_text('{"id": "a1", "config_digest": "", "started": 0, "config": {}}')
    torch.save({"model": {}, "run": {"id": "b2"}}, run / "model_best.pth")
    torch.save({"model": {}, "iteration": 1, "run": {"id": "a1"}}, run / "model_final.pth")
    assert find_source(run).weights == (str(run / "model_final.pth"),)


def test_find_source__a_best_that_is_damaged_is_told(run, caplog):
    (run / "model_best.pth").write_bytes((run / "model_final.pth").read_bytes()[:1000])
    assert find_source(run).weights == (str(run / "model_final.pth"),)
    assert "model_best.pth, where the run was best, cannot be read" in caplog.text


@pytest.mark.parametrize("weights", ["", 3, b"a.pth"])
def test_find_source__weights_that_name_nothing(run, weights):
    for source in (run, run / "config.yaml", "dino/demo_shapes.py"):
        with pytest.raises(ConfigError, match="names no checkpoint: give a file or an address"):
            find_source(source, weights=weights)


def test_find_source__a_checkpoint_with_the_config_beside_it_or_given(run, tmp_path):
    file = run / "model_final.pth"
    assert find_source(file).config.model.num_classes == 3
    other = OmegaConf.create({"model": {"num_classes": 7}})
    assert find_source(file, config=other).config.model.num_classes == 7
    alone = tmp_path / "alone.pth"
    file.rename(alone)
    with pytest.raises(ConfigError, match=r"holds no config\.yaml.*name the config by config="):
        find_source(alone)


def test_find_source__a_checkpoint_of_an_earlier_run_has_its_own_config(run):
    torch.save({"model": {}, "run": {"id": "a1"}}, run / "model_0000009.pth")
    (run / "config.a1.yaml").write_text("model: {num_classes: 5}")
    assert find_source(run / "model_0000009.pth").config.model.num_classes == 5


def test_find_source__a_config_with_its_checkpoint(run):
    cfg = OmegaConf.create({"model": {}, "train": {"init_checkpoint": "a.pth"}})
    assert find_source(cfg).weights == ("a.pth",)
    assert find_source(cfg, weights="b.pth").weights == ("b.pth",)
    assert find_source("dino/demo_shapes", weights="random").weights == ()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dino/demo_shapes.py", r"names no weights, .*give weights=, .*weights='random'"),
        ("dino/demo_shape.py", r"is no run's folder and .*Did you mean 'dino/demo_shapes\.py'"),
        ("https://host/model.pth", "without the config of its detector: name that by config="),
        ("hf-hub:owner", "hf-hub:owner is no repository of .*: expected hf-hub:owner/name, or"),
        ("hf-hub:owner/name@", "is no repository of"),
        ("hf://owner/name", "is no repository of"),
        ("HF-HUB:owner/name", "is no repository of"),
        ("hf-hub:owner/name/a.pth", "a.pth is a checkpoint without the config of its detector"),
        ("owner/name", "A repository of the Hugging Face hub is named hf-hub:owner/name"),
        ("", "is empty"),
    ],
)
def test_find_source__mistakes_are_said(source, message):
    with pytest.raises(ConfigError, match=message):
        find_source(source)


def test_find_source__the_home_of_nobody():
    with pytest.raises(ConfigError, match="~no-such-user/run is no run's folder"):
        find_source("~no-such-user/run")


def test_find_source__a_misspelt_folder_is_told_by_its_neighbours(run):
    with pytest.raises(ConfigError, match=r"rnu does not exist\. Did you mean 'run'\?"):
        find_source(run.with_name("rnu"))


def test_find_source__the_folder_around_a_run(run):
    with pytest.raises(ConfigError, match=f"name the config by config=. Did you mean '{run}'"):
        find_source(run.parent)


def test_find_source__a_file_of_another_kind(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"a\.png is neither a checkpoint nor a config"):
        find_source(tmp_path / "a.png")


def test_find_source__two_checkpoints_are_one_too_many(run):
    with pytest.raises(ConfigError, match=r"is a checkpoint, and weights='b\.pth' another"):
        find_source(run / "model_final.pth", weights="b.pth")


def test_find_source__two_configs_are_one_too_many(run):
    for source in ("dino/demo_shapes.py", OmegaConf.create({"model": {}})):
        with pytest.raises(
            ConfigError, match=r"is a config, and config= .* names another: give one"
        ):
            find_source(source, config="dino/timm_example.py", weights=run / "model_final.pth")
    assert find_source(run, config="dino/demo_shapes.py").weights == (str(run / "model_final.pth"),)


def test_find_source__a_run_without_a_checkpoint(run):
    (run / "model_final.pth").unlink()
    with pytest.raises(ConfigError, match="holds no checkpoint of its run: train it, or name one"):
        find_source(run)


def test_find_source__something_else_than_a_source():
    with pytest.raises(TypeError, match="got int: give a path, an address or a config"):
        find_source(3)


def test_find_source__a_pickled_config_is_read_where_it_is_trusted(run):
    (run / "config.yaml").unlink()
    (run / PICKLE).write_bytes(pickle.dumps(OmegaConf.create({"model": {"num_classes": 4}})))
    with pytest.raises(ConfigError, match=r"is a pickle, which can run code.*trust=\['config"):
        find_source(run)
    assert find_source(run, trusted=[PICKLE]).config.model.num_classes == 4
