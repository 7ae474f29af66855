"""Registering COCO-format data sets with detectron2, when asked to and never at import."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from detrex.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoJson:
    """The loader of one COCO-format data set; two are equal if they read the same files.

    Attributes:
        name: what the data set is registered as.
        json_file: the annotations.
        image_root: the folder that the annotations' file names are relative to.
        num_classes: how many classes the model tells apart, None to accept any number.
    """

    name: str
    json_file: str
    image_root: str
    num_classes: int | None = field(default=None, compare=False)

    def __call__(self) -> list[dict[str, Any]]:
        """Read the annotations into detectron2's standard dicts, one for each image.

        Raises:
            ConfigError: if the annotations have more or fewer categories than ``num_classes``.
        """
        records = load_coco_json(self.json_file, self.image_root, self.name)
        classes = MetadataCatalog.get(self.name).thing_classes
        if self.num_classes is not None and len(classes) != self.num_classes:
            raise ConfigError(
                f"Data set {self.name!r} has {len(classes)} categories ({_listed(classes)}), but "
                f"the model is for {self.num_classes}: set model.num_classes={len(classes)}."
            )
        return records


def register_coco_json(
    name: str,
    json_file: str | os.PathLike[str] | None,
    image_root: str | os.PathLike[str] | None,
    num_classes: int | None = None,
) -> str:
    """Make a COCO-format data set known to detectron2 by name.

    Nothing is read yet but the paths. Registering the same files again changes nothing, so that a
    config can call this wherever it needs the name::

        dataloader.train.dataset.names = L(register_coco_json)(
            name="my_train", json_file="train.json", image_root="train/"
        )

    Args:
        name: any name that is not taken.
        json_file: the annotations, a file in COCO's format.
        image_root: the folder of the pictures.
        num_classes: how many classes the model tells apart; checked when the annotations are read.

    Returns:
        ``name``.

    Raises:
        ConfigError: if a path is missing or does not exist, or the name belongs to other files.
    """
    dataset = CocoJson(
        name,
        json_file=_existing_path(name, "json_file", json_file),
        image_root=_existing_path(name, "image_root", image_root),
        num_classes=num_classes,
    )
    if name in DatasetCatalog.list():
        registered = DatasetCatalog[name]
        if registered != dataset:
            raise ConfigError(
                f"Data set name {name!r} is taken by {registered}, so it cannot stand for "
                f"{dataset.json_file}: choose another name."
            )
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, dataset)
    MetadataCatalog.get(name).set(
        json_file=dataset.json_file, image_root=dataset.image_root, evaluator_type="coco"
    )
    return name


def _existing_path(name: str, role: str, path: str | os.PathLike[str] | None) -> str:
    if not path:
        raise ConfigError(
            f"{role} of data set {name!r} is not set: give its path in the config, on the command "
            f"line (dataloader.train.dataset.names.{role}=...), or in the environment variable "
            f"that the config reads it from."
        )
    if not Path(path).exists():
        raise ConfigError(
            f"{role} of data set {name!r} is {os.fspath(path)!r}, which does not exist in "
            f"{Path.cwd()}: correct the path."
        )
    return os.fspath(path)


def _listed(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
