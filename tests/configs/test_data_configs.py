"""The data configs read pictures, and a data set of one's own needs nothing but its paths."""

import uuid

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from detrex.config import get_config
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.errors import ConfigError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_shapes_dataset(tmp_path_factory.mktemp("shapes"), 5, (43, 61))


@pytest.fixture
def forget_data_sets():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def custom(num_classes=3, overrides=()):
    cfg = OmegaConf.create({"model": {"num_classes": num_classes}}, flags={"allow_objects": True})
    cfg.dataloader = get_config("common/data/custom.py").dataloader
    small = ["dataloader.train.num_workers=0", "dataloader.train.total_batch_size=2"]
    return LazyConfig.apply_overrides(cfg, [*small, "dataloader.test.num_workers=0", *overrides])


def paths_of(part, files):
    json_file, image_root = files
    prefix = f"dataloader.{part}.dataset.names"
    return [f"{prefix}.json_file='{json_file}'", f"{prefix}.image_root='{image_root}'"]


def test_custom__loading_registers_nothing():
    before = set(DatasetCatalog.list())
    custom()
    assert set(DatasetCatalog.list()) == before


def test_custom__paths_by_override(files, forget_data_sets):
    cfg = custom(overrides=[*paths_of("train", files), *paths_of("test", files)])
    evaluator = instantiate(cfg.dataloader.evaluator)
    assert evaluator._metadata.json_file == str(files[0])
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == 2
    assert all(sample["image"].dtype == torch.uint8 for sample in batch)
    assert all(min(sample["image"].shape[1:]) >= 384 for sample in batch)
    test = instantiate(cfg.dataloader.test)
    assert len(test) == 5
    assert next(iter(test))[0]["image"].shape == (3, 800, 1135)


def test_custom__paths_by_environment(files, forget_data_sets, monkeypatch):
    for part in ("TRAIN", "VAL"):
        monkeypatch.setenv(f"DETREX_{part}_JSON", str(files[0]))
        monkeypatch.setenv(f"DETREX_{part}_IMAGES", str(files[1]))
    cfg = custom()
    assert len(instantiate(cfg.dataloader.test)) == 5
    assert len(instantiate(cfg.dataloader.train.dataset)) == 5


def test_custom__paths_missing(monkeypatch):
    for part in ("TRAIN", "VAL"):
        monkeypatch.delenv(f"DETREX_{part}_JSON", raising=False)
    with pytest.raises(ConfigError, match="json_file of data set 'my_dataset_train' is not set"):
        instantiate(custom().dataloader.train)


def test_custom__number_of_classes(files, forget_data_sets):
    cfg = custom(num_classes=80, overrides=paths_of("train", files))
    with pytest.raises(ConfigError, match=r"has 3 categories .* set model\.num_classes=3"):
        instantiate(cfg.dataloader.train)


@pytest.mark.parametrize("name", ["coco", "coco_detr"])
def test_coco__pipeline_runs(files, forget_data_sets, name):
    from detrex.data.datasets import register_coco_json

    dataset = register_coco_json(f"shapes_{uuid.uuid4().hex}", *files)
    cfg = get_config(f"common/data/{name}.py")
    LazyConfig.apply_overrides(
        cfg,
        [
            f"dataloader.train.dataset.names={dataset}",
            f"dataloader.test.dataset.names={dataset}",
            "dataloader.train.total_batch_size=2",
            "dataloader.train.num_workers=0",
            "dataloader.test.num_workers=0",
        ],
    )
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert all(len(sample["instances"]) >= 0 for sample in batch)
    assert next(iter(instantiate(cfg.dataloader.test)))[0]["image"].shape == (3, 800, 1135)
    assert instantiate(cfg.dataloader.evaluator)._metadata.name == dataset


def test_constants__same_means_in_either_order():
    constants = get_config("common/data/constants.py").constants
    assert constants.imagenet_bgr256_mean == list(reversed(constants.imagenet_rgb256_mean))
