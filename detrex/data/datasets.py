"""Registering COCO-format data sets with detectron2, when asked to and never at import."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from detectron2.data import DatasetCatalog, MetadataCatalog

from detrex.data.coco.classes import class_names
from detrex.data.coco.document import Document
from detrex.data.coco.inspection import has_errors, inspect, log_findings
from detrex.data.coco.reading import no_garbage_collection
from detrex.data.coco.records import metadata_of, standard_records
from detrex.errors import ConfigError

_documents: WeakValueDictionary[tuple[Any, ...], Document] = WeakValueDictionary()
"""Documents that somebody still holds, so that a file is read once for all its uses."""


@dataclass(frozen=True)
class CocoJson:
    """The loader of one COCO-format data set; two are equal if they read the same files.

    Attributes:
        name: what the data set is registered as.
        json_file: the annotations.
        image_root: the folder that the annotations' file names are relative to.
        num_classes: how many classes the model tells apart, None to accept any number.
        masks: whether objects without a mask are of no use.
        keypoints: whether keypoints are trained or evaluated.
        classes: the names in the order in which the model numbers them, None for that of the ids.
        source: where ``classes`` are from.
        skip_missing: whether a run can go on without pictures that are missing.
        registered_classes: the names that detectron2's metadata had before, or None.
    """

    name: str
    json_file: str
    image_root: str
    num_classes: int | None = field(default=None, compare=False)
    masks: bool = field(default=False, compare=False)
    keypoints: bool = field(default=False, compare=False)
    classes: tuple[str, ...] | None = field(default=None, compare=False)
    source: str = field(default="the model", compare=False)
    skip_missing: bool = field(default=False, compare=False)
    registered_classes: tuple[str, ...] | None = field(default=None, compare=False)

    def __call__(self) -> list[dict[str, Any]]:
        """Read the annotations into detectron2's standard dicts, one for each image.

        Raises:
            ConfigError: if the annotations have more or fewer categories than ``num_classes``.
            DataError: if they cannot be read, or have an error; see `detrex.data.coco.inspect`.
        """
        document = self.document()
        document.raise_errors()
        self.publish(document)
        check_num_classes(self.name, class_names(document), self.num_classes)
        with no_garbage_collection():
            return standard_records(document, self.image_root)

    def document(self) -> Document:
        """Read and inspect the annotations, or return what is still in memory of them.

        Returns:
            The document, whose warnings have been logged. It may have errors.

        Raises:
            DataError: the file cannot be read, or is not in COCO's format.
        """
        stat = os.stat(self.json_file) if os.path.exists(self.json_file) else None
        state = (stat.st_mtime_ns, stat.st_size) if stat else None
        options = (self.masks, self.keypoints, self.classes, self.skip_missing)
        key = (self.json_file, self.image_root, state, *options)
        document = _documents.get(key)
        if document is None:
            document = inspect(
                self.json_file,
                self.image_root,
                masks=self.masks,
                keypoints=self.keypoints,
                classes=self.classes,
                source=self.source,
                skip_missing=self.skip_missing,
            )
            _documents[key] = document
            if not has_errors(document):
                log_findings(document)
        return document

    def publish(self, document: Document, evaluation_file: str = "") -> None:
        """Describe the data set in detectron2's catalogue of metadata.

        Args:
            document: from `document`, without errors.
            evaluation_file: what to evaluate with in the place of ``json_file``.
        """
        metadata = metadata_of(document)
        if evaluation_file:
            metadata["json_file"] = evaluation_file
        known = vars(MetadataCatalog.get(self.name))
        if known.get("keypoint_names") == metadata.get("keypoint_names"):
            metadata |= {key: known[key] for key in ("keypoint_flip_map",) if key in known}
        # What detectron2 sets cannot be set again, and the content of a file may be another now.
        known.update(metadata)


def check_num_classes(
    name: str, classes: Sequence[str], num_classes: int | None, key: str = "model.num_classes"
) -> None:
    """Check that a data set has as many classes as the model.

    Args:
        name: the data set's.
        classes: its classes.
        num_classes: the model's number, None to accept any.
        key: the model's number in the config.

    Raises:
        ConfigError: the numbers differ.
    """
    if num_classes is not None and len(classes) != num_classes:
        raise ConfigError(
            f"Data set {name!r} has {len(classes)} categories ({', '.join(classes[:5])}"
            f"{', ...' if len(classes) > 5 else ''}), but the model is for {num_classes}: set "
            f"{key}={len(classes)}."
        )


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
        ConfigError: if a path is missing, no path or does not exist, or the name is no text or
            belongs to other files.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"The name of the data set of {json_file} is {name!r}, expected a text: give it a name "
            "that is not taken."
        )
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
        DatasetCatalog[name] = replace(registered, num_classes=num_classes)
        return name
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
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"{role} of data set {name!r} is {path}, expected a path: write it.")
    if not os.path.exists(path):
        raise ConfigError(
            f"{role} of data set {name!r} is {os.fspath(path)!r}, which does not exist in "
            f"{Path.cwd()}: correct the path."
        )
    return os.fspath(path)
