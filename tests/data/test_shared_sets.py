"""A data set is made once a machine, and what a loader takes of it stays what it was."""

import uuid

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from omegaconf import OmegaConf
from torch.utils.data import Dataset

from detrex.data.loader import build_train_loader
from detrex.data.shared_sets import named_missing_files, shared_dataset
from detrex.data.stored_records import StoredRecords
from detrex.errors import ConfigError

RECORDS = [
    {"file_name": "a.png", "height": 4, "width": 6, "annotations": [{"iscrowd": i}]} for i in (0, 1)
]


@pytest.fixture
def name():
    unique = f"shared_{uuid.uuid4().hex}"
    yield unique
    for catalogue in (DatasetCatalog, MetadataCatalog):
        catalogue.pop(unique, None)


class Lazy(Dataset):
    def __len__(self):
        return 5


def own_loader(dataset, mapper, total_batch_size):
    return dataset


def config(name, records, loader=build_train_loader):
    DatasetCatalog.register(name, lambda: records)
    dataset = L(get_detection_dataset_dicts)(names=name)
    train = L(loader)(dataset=dataset, mapper=None, total_batch_size=1)
    return OmegaConf.create({"dataloader": {"train": train}}, flags={"allow_objects": True})


def test_shared_dataset__a_list_is_stored_after_its_filter(name):
    found = shared_dataset(config(name, RECORDS), "dataloader.train")
    assert isinstance(found, StoredRecords)
    assert list(found) == RECORDS[:1]


def test_shared_dataset__a_data_set_that_reads_for_itself_stays(name):
    lazy = Lazy()
    assert shared_dataset(config(name, lazy), "dataloader.train") is lazy


def test_shared_dataset__a_loader_of_ones_own_gets_what_it_got(name):
    assert shared_dataset(config(name, RECORDS, own_loader), "dataloader.train") is None


def test_shared_dataset__no_call():
    cfg = OmegaConf.create({"dataloader": {"train": {"dataset": []}, "test": None}})
    assert shared_dataset(cfg, "dataloader.train") is None
    assert shared_dataset(cfg, "dataloader.test") is None


def test_named_missing_files__other_errors_pass():
    sentence = r"^dataloader\.train needs a\.json, which does not exist"
    with pytest.raises(ConfigError, match=sentence), named_missing_files("dataloader.train"):
        raise ConfigError("raw") from FileNotFoundError(2, "no", "a.json")
    with pytest.raises(ConfigError, match=r"^raw$"), named_missing_files("dataloader.train"):
        raise ConfigError("raw")
