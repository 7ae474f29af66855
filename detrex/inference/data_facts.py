"""What a config's data sets tell of the classes, as far as they are on this machine."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from detrex.config import try_get_key
from detrex.data.class_names import dataset_metadata
from detrex.data.coco.classes import check_names
from detrex.data.coco.reading import read_document
from detrex.data.coco.records import metadata_of
from detrex.data.datasets import CocoJson
from detrex.errors import DetrexError

logger = logging.getLogger(__name__)

_IDS = "thing_dataset_id_to_contiguous_id"
_DRAWN = ("keypoint_names", "keypoint_connection_rules")
_MOST_READ = 50 << 20  # bytes of annotations; a second's work


@dataclass(frozen=True)
class DataFacts:
    """What is known of the classes beside their names.

    Attributes:
        category_ids: the data set's id of each class, by class index; empty where they are unknown.
        metadata: what drawing uses: names of keypoints, and which of them lines join.
    """

    category_ids: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def unregistered() -> Iterator[None]:
    """Let detectron2 forget the data sets that a block registers: their names may be wanted yet."""
    before = set(DatasetCatalog.list())
    try:
        yield
    finally:
        for name in set(DatasetCatalog.list()) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name, None)


def data_facts(cfg: DictConfig, class_names: Sequence[str]) -> DataFacts:
    """Ask the test set of a config, then its training set; a large file of annotations is not read.

    Args:
        cfg: the config.
        class_names: the detector's, by index, which the categories are found by.
    """
    for metadata in _metadata(cfg):
        names = [str(name) for name in metadata.get("thing_classes", [])]
        if not class_names or not set(class_names) <= set(names):
            continue
        key_of = {names[index]: key for key, index in metadata.get(_IDS, {}).items()}
        ids = [key_of[name] for name in class_names if name in key_of]
        drawn = {key: metadata[key] for key in _DRAWN if key in metadata}
        return DataFacts(tuple(ids) if len(ids) == len(class_names) else (), drawn)
    return DataFacts()


def _metadata(cfg: DictConfig) -> Iterator[Mapping[str, Any]]:
    for side in ("test", "train"):
        dataset = try_get_key(cfg, f"dataloader.{side}.dataset")
        if not isinstance(dataset, DictConfig) or dataset.get("names") is None:
            continue
        try:
            known = dataset_metadata(dataset).as_dict()
            yield known if known.get(_IDS) else known | _read(known["name"])
        except (DetrexError, OmegaConfBaseException, OSError) as error:
            logger.info("dataloader.%s.dataset tells nothing of the classes: %s", side, error)


def _read(name: str) -> dict[str, Any]:
    """Read a registered data set's categories; its pictures need not be here."""
    loader = DatasetCatalog[name] if name in DatasetCatalog.list() else None
    if not isinstance(loader, CocoJson) or os.path.getsize(loader.json_file) > _MOST_READ:
        return {}
    document = read_document(loader.json_file)
    check_names(document)
    document.raise_errors()
    return metadata_of(document)
