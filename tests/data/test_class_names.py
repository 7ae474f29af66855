"""Which names are drawn: those asked for, of the checkpoint, of the config, or numbers."""

import json
import logging

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from detrex.data.class_names import (
    checkpoint_class_names,
    choose_metadata,
    config_class_names,
    dataset_metadata,
    named_metadata,
)
from detrex.data.datasets import register_coco_json
from detrex.errors import ConfigError


@pytest.fixture
def cfg(tmp_path):
    """A config with a training set of two classes that nobody has read yet."""
    name = f"class_names_{tmp_path.name}"
    box = {"bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0}
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 9, "width": 9}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **box}],
        "categories": [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    names = L(register_coco_json)(
        name=name, json_file=str(tmp_path / "a.json"), image_root=str(tmp_path)
    )
    yield OmegaConf.create(
        {"dataloader": {"train": {"dataset": {"names": names}}}, "model": {"num_classes": 2}},
        flags={"allow_objects": True},
    )
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def names_of(metadata):
    return metadata.get("thing_classes", None)


def test_config_class_names__are_read_when_asked_for(cfg):
    assert config_class_names(cfg) is None
    assert config_class_names(cfg, read=True) == ["circle", "square"]
    dataset_metadata(cfg.dataloader.train.dataset).thing_classes = ["a", "b"]
    assert config_class_names(cfg) == ["a", "b"]


def test_config_class_names__test_set_stands_in_for_a_training_set_without_files(cfg):
    cfg.dataloader.test = {"dataset": {"names": ["coco_2017_val", "coco_2017_train"]}}
    cfg.dataloader.train.dataset.names.json_file = "absent.json"
    assert config_class_names(cfg, read=True)[:2] == ["person", "bicycle"]
    assert config_class_names(OmegaConf.create({})) is None
    cfg.dataloader.train.dataset.names.num_classes = "${model.absent}"
    assert config_class_names(cfg, read=True)[:2] == ["person", "bicycle"]


def test_dataset_metadata__registers_and_takes_the_first(cfg):
    assert dataset_metadata(cfg.dataloader.train.dataset).name.startswith("class_names_")
    several = OmegaConf.create({"names": ["coco_2017_val", "coco_2017_train"]})
    assert dataset_metadata(several).name == "coco_2017_val"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"class_names": ["a", "b"]}, ["a", "b"]),
        ({"class_names": []}, None),
        ({"class_names": ["a", 3]}, None),
        ({"class_names": "ab"}, None),
        ({}, None),
    ],
)
def test_checkpoint_class_names__only_a_list_of_strings(content, expected):
    assert checkpoint_class_names(content) == expected


def test_choose_metadata__asked_for_before_checkpoint_before_config(cfg, caplog):
    checkpoint = {"class_names": ["round", "angular"]}
    name = cfg.dataloader.train.dataset.names.name
    assert names_of(choose_metadata(cfg, checkpoint, name)) == ["circle", "square"]
    assert names_of(choose_metadata(cfg, checkpoint)) == ["round", "angular"]
    assert names_of(choose_metadata(cfg, {})) == ["circle", "square"]
    assert not caplog.records


def test_choose_metadata__of_another_number_of_classes(cfg, caplog):
    cfg.model.num_classes = 3
    assert names_of(choose_metadata(cfg, {})) is None
    assert "The model has 3 classes and the config's data set 2" in caplog.text
    assert "numbers are drawn" in caplog.text
    caplog.clear()
    assert names_of(choose_metadata(cfg, {"class_names": ["a"]})) == ["a"]
    assert "The checkpoint has 1 class names, but the model has 3 classes" in caplog.text


def test_choose_metadata__numbers_where_nothing_is_known(caplog):
    with caplog.at_level(logging.WARNING):
        assert names_of(choose_metadata(OmegaConf.create({}), {})) is None
    assert "Nothing tells the classes' names" in caplog.text


def test_named_metadata__unknown_name_has_near_ones():
    with pytest.raises(
        ConfigError, match=r"--x coco_2017_vall is no data set .* Did you mean 'coco_2017_val'"
    ):
        named_metadata("coco_2017_vall", "--x")
    assert "coco_2017_vall" not in MetadataCatalog.list()


def test_named_metadata__without_names_or_files_is_said(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = f"no_names_{tmp_path.name}"
    MetadataCatalog.get(name)
    with pytest.raises(ConfigError, match="has no class names"):
        named_metadata(name, "--x")

    def absent():
        raise FileNotFoundError(2, "No such file or directory", "gone.json")

    DatasetCatalog.register(name, absent)
    with pytest.raises(ConfigError, match=r"cannot be read .*gone\.json"):
        named_metadata(name, "--x")
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
