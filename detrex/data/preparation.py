"""The data sets of a config, inspected before the model is built.

Training and validation are read, checked and mended by `detrex.data.coco`, and brought together:
the validation's classes are numbered as the training's, and the evaluator reads a mended copy where
the file itself would mislead it.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from detrex.config import try_get_key
from detrex.data.coco.classes import check_names, class_names
from detrex.data.coco.document import Document
from detrex.data.coco.reading import read_document
from detrex.data.coco.records import evaluation_file
from detrex.data.consistency import check_consistent, check_registered
from detrex.data.datasets import CocoJson
from detrex.data.tasks import READERS, is_call_of, keypoints_wanted, masks_wanted
from detrex.errors import DataError, DetrexError
from detrex.files import default_cache_dir
from detrex.utils.machines import once_a_machine

logger = logging.getLogger(__name__)

Side = Literal["train", "test"]
Sets = dict[Side, list[tuple[CocoJson, Document]]]

_COPIES = "evaluation_annotations"
_USES = {
    "train": ("train on", ""),
    "test": ("evaluate against", ", or set dataloader.evaluator=null"),
}


@contextmanager
def prepared_data(
    cfg: DictConfig, *, train: bool = True, classes: Sequence[str] | None = None, source: str = ""
) -> Iterator[None]:
    """Look at the config's data sets, and keep them in memory while loaders are built.

    Data sets in COCO's format are inspected, whether `detrex.data.datasets` registered them or
    detectron2; others are left alone. One process of each machine reads them, and all know what it
    found out, its errors included.

    Args:
        cfg: ``dataloader.*.dataset.names``, ``dataloader.evaluator``, the detector's numbers of
            classes and keypoints, the mappers and ``train.output_dir`` are read. A mended copy of
            annotations to evaluate with goes below the latter.
        train: whether the training set is used. If not, it is read for the names of the classes
            alone, where it is there.
        classes: the names in the order in which the model numbers them, where that is known
            already; only without ``train``.
        source: where ``classes`` are from, to be named.

    Raises:
        ConfigError: a data set does not fit the config; see `detrex.data.consistency`.
        DataError: annotations or pictures have a mistake that only their owner can mend.
    """
    kept: list[Sets] = []  # until the loaders are built

    def look() -> list[tuple[CocoJson, dict[str, Any]]]:
        sets = inspect_data(cfg, train=train, classes=classes, source=source)
        kept.append(sets)
        _publish(cfg, sets, train)
        _warn_of_shared_pictures(sets)
        datasets = [dataset for pairs in sets.values() for dataset, _ in pairs]
        return [(each, MetadataCatalog.get(each.name).as_dict()) for each in datasets]

    for dataset, metadata in once_a_machine(look):
        DatasetCatalog[dataset.name] = dataset
        vars(MetadataCatalog.get(dataset.name)).update(metadata)
    yield


def _publish(cfg: DictConfig, sets: Sets, train: bool) -> None:
    """Raise what is wrong, and tell detectron2 what is right."""
    for side, pairs in sets.items():
        if train or side == "test":
            check_other_sets(cfg, side)
        for dataset, document in pairs:
            document.raise_errors()
            check_consistent(cfg, dataset, document, side)
    for dataset, document in sets["train"]:
        require_objects(document, "train")
        dataset.publish(document)
    folder = str(try_get_key(cfg, "train.output_dir", default="") or default_cache_dir())
    for dataset, document in sets["test"]:
        if train:
            require_objects(document, "test")
        elif not document.has_annotations:
            logger.warning("%s has no annotations, so no AP is computed.", document.path)
        copy = evaluation_file(document, os.path.join(folder, _COPIES), dataset.name)
        dataset.publish(document, copy)


def inspect_data(
    cfg: DictConfig, *, train: bool = True, classes: Sequence[str] | None = None, source: str = ""
) -> Sets:
    """Read and check the data sets of a config, and bring their classes together.

    Args:
        cfg: see `prepared_data`.
        train: see `prepared_data`.
        classes: see `prepared_data`.
        source: see `prepared_data`.

    Returns:
        For ``"train"`` and ``"test"``, the data sets with their documents, errors and all. There is
        no test set where there is no evaluator.

    Raises:
        DataError: annotations cannot be read at all.
    """
    sets: Sets = {"train": [], "test": []}
    if classes is None and not train:
        classes, source = _training_classes(cfg)
    masks, keypoints = masks_wanted(cfg), keypoints_wanted(cfg)
    skip = try_get_key(cfg, "dataloader.on_bad_image") == "skip"
    sides: tuple[Side, ...] = ("train", "test") if train else ("test",)
    for side in sides:
        if side == "test" and try_get_key(cfg, "dataloader.evaluator") is None:
            continue
        mapper = try_get_key(cfg, f"dataloader.{side}.mapper")
        for dataset in coco_sets(cfg, side):
            names = tuple(classes) if classes else dataset.registered_classes
            origin = source or f"the metadata of {dataset.name!r}"
            dataset = replace(
                dataset,
                classes=names,
                source=origin,
                masks=masks,
                keypoints=keypoints,
                skip_missing=skip or not is_call_of(mapper, *READERS),
            )
            DatasetCatalog[dataset.name] = dataset  # read so from now on
            document = dataset.document()
            sets[side].append((dataset, document))
            if classes is None and not any(f.severity == "error" for f in document.findings):
                classes, source = tuple(class_names(document)), dataset.json_file
    return sets


def coco_sets(cfg: DictConfig, side: Side) -> list[CocoJson]:
    """Return the data sets of a loader that are in COCO's format.

    Args:
        cfg: the config.
        side: the loader, ``"train"`` or ``"test"``.

    Returns:
        Their loaders. One that detectron2 registered and whose file is not there is left out.

    Raises:
        ConfigError: a data set cannot be registered.
    """
    found = (_as_coco(name) for name in registered_sets(cfg, side))
    return [dataset for dataset in found if dataset is not None]


def check_other_sets(cfg: DictConfig, side: Side) -> None:
    """Check the data sets of a loader that are not in COCO's format, as far as they are known.

    Args:
        cfg: the config.
        side: the loader.

    Raises:
        ConfigError: one has another number of classes than the detector.
    """
    for name in registered_sets(cfg, side):
        if _as_coco(name) is None:
            check_registered(cfg, name)


def registered_sets(cfg: DictConfig, side: Side) -> list[str]:
    """Name a loader's data sets that detectron2 knows; those that a call registers are registered.

    Args:
        cfg: the config.
        side: the loader.
    """
    loader = try_get_key(cfg, f"dataloader.{side}")
    dataset = loader.get("dataset") if isinstance(loader, DictConfig) else None
    names = dataset.get("names") if isinstance(dataset, DictConfig) else None
    if isinstance(names, DictConfig):
        names = instantiate(names)
    elif isinstance(names, ListConfig):
        names = [instantiate(name) for name in names]
    named = [names] if isinstance(names, str) else list(names or [])
    return [name for name in named if name in DatasetCatalog.list()]


def tolerate_missing_pictures(cfg: DictConfig, side: Side) -> None:
    """Let a program that draws a data set begin, and tell of a missing picture at its turn.

    Args:
        cfg: the config.
        side: the loader whose data sets are meant.
    """
    for dataset in coco_sets(cfg, side):
        DatasetCatalog[dataset.name] = replace(dataset, skip_missing=True)


def _as_coco(name: str) -> CocoJson | None:
    loader, metadata = DatasetCatalog[name], MetadataCatalog.get(name)
    if isinstance(loader, CocoJson):
        return loader
    registrar = f"{loader.__module__}.{getattr(loader, '__qualname__', '')}"
    if not registrar.startswith("detectron2.data.datasets.coco.register_coco_instances."):
        return None
    if not PathManager.exists(metadata.json_file):
        return None
    classes = metadata.get("thing_classes")
    return CocoJson(
        name,
        os.fspath(metadata.json_file),
        os.fspath(metadata.image_root),
        registered_classes=tuple(classes) if classes else None,
    )


def _training_classes(cfg: DictConfig) -> tuple[tuple[str, ...] | None, str]:
    """The names of the classes in training and where they are from, None where that is unknown."""
    try:
        for dataset in coco_sets(cfg, "train"):
            if dataset.registered_classes is not None:
                return dataset.registered_classes, f"the metadata of {dataset.name!r}"
            document = read_document(dataset.json_file)
            check_names(document)
            document.raise_errors()
            return tuple(class_names(document)), dataset.json_file
    except (DetrexError, OmegaConfBaseException, KeyError, TypeError) as error:
        logger.warning(
            "The training annotations cannot be read, so that the test set's own order of classes "
            "is taken for the model's: %s",
            " ".join(str(error).split()),
        )
    return None, ""


def require_objects(document: Document, side: Side) -> None:
    """Check that there is something to train on, or to evaluate against.

    Args:
        document: after all checks, without errors.
        side: what it is for.

    Raises:
        DataError: every annotation is a crowd or left out, or there is none.
    """
    if all(annotation["iscrowd"] for annotation in document.kept_annotations()):
        use, cure = _USES[side]
        raise DataError(
            f"{document.path}: {len(document.annotations)} annotations, and none is an object to "
            f"{use}: they are missing, crowds, or left out; correct the annotations{cure}."
        )


def _warn_of_shared_pictures(sets: Sets) -> None:
    train, test = (
        {
            os.path.join(dataset.image_root, image["file_name"])
            for dataset, document in sets[side]
            for image in document.images
        }
        for side in ("train", "test")
    )
    if shared := train & test:
        logger.warning(
            "%d of %d pictures to evaluate on are trained on, too, such as %s.",
            len(shared),
            len(test),
            min(shared),
        )
