"""Data sets are registered when asked for, once, and their mistakes are named."""

import uuid

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from detrex.data.datasets import register_coco_json
from detrex.data.demo.shapes import CLASSES, write_shapes_dataset
from detrex.errors import ConfigError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_shapes_dataset(tmp_path_factory.mktemp("shapes"), 3, (37, 41))


@pytest.fixture
def name():
    unique = f"shapes_{uuid.uuid4().hex}"
    yield unique
    if unique in DatasetCatalog.list():
        DatasetCatalog.remove(unique)
    if unique in MetadataCatalog.list():
        MetadataCatalog.remove(unique)


def test_register_coco_json__loads_and_describes(files, name):
    json_file, image_root = files
    assert register_coco_json(name, json_file, image_root, num_classes=3) == name
    records = DatasetCatalog.get(name)
    assert len(records) == 3
    assert (records[0]["height"], records[0]["width"]) == (37, 41)
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == list(CLASSES)
    assert metadata.json_file == str(json_file)
    assert metadata.evaluator_type == "coco"


def test_register_coco_json__again_changes_nothing(files, name):
    for _ in range(2):
        register_coco_json(name, *files)
    assert len(DatasetCatalog.get(name)) == 3


def test_register_coco_json__other_files_under_the_name(files, name, tmp_path):
    register_coco_json(name, *files)
    with pytest.raises(ConfigError, match=f"{name}' is taken by .*choose another name"):
        register_coco_json(name, files[0], tmp_path)


def test_register_coco_json__name_of_detectron2(files):
    with pytest.raises(ConfigError, match="'coco_2017_val' is taken"):
        register_coco_json("coco_2017_val", *files)


@pytest.mark.parametrize("path", [None, ""])
def test_register_coco_json__unset_path(files, name, path):
    with pytest.raises(
        ConfigError, match=r"json_file of data set .* is not set.*names\.json_file="
    ):
        register_coco_json(name, path, files[1])


def test_register_coco_json__no_path_and_no_name(files, name):
    with pytest.raises(ConfigError, match=r"image_root of .* is 5, expected a path"):
        register_coco_json(name, files[0], 5)
    for wrong in (None, 5, ""):
        with pytest.raises(ConfigError, match=r"name of the data set of .* expected a text"):
            register_coco_json(wrong, *files)


def test_register_coco_json__absent_path(files, name):
    with pytest.raises(
        ConfigError, match=r"image_root .* is 'no/such/folder', which does not exist"
    ):
        register_coco_json(name, files[0], "no/such/folder")
    assert name not in DatasetCatalog.list()


def test_register_coco_json__number_of_classes_checked_when_read(files, name):
    register_coco_json(name, *files, num_classes=80)
    with pytest.raises(
        ConfigError, match=r"3 categories \(circle, square, triangle\).*num_classes=3"
    ):
        DatasetCatalog.get(name)
    register_coco_json(name, *files, num_classes=3)
    assert len(DatasetCatalog.get(name)) == 3


def test_register_coco_json__as_a_name_in_a_config(files, name):
    cfg = L(get_detection_dataset_dicts)(
        names=L(register_coco_json)(
            name=name, json_file=str(files[0]), image_root=str(files[1]), num_classes=None
        )
    )
    assert len(instantiate(cfg)) == 3
