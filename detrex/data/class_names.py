"""The names of a detector's classes: those of its checkpoint, of a data set, or of a config's one.

A run writes its names into its checkpoints under `CHECKPOINT_KEY`, as a plain list of strings.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from detrex.config import try_get_key
from detrex.data.coco.classes import check_names, class_names
from detrex.data.coco.reading import read_document
from detrex.data.datasets import CocoJson
from detrex.data.tasks import num_classes_of
from detrex.errors import ConfigError, DetrexError, did_you_mean

logger = logging.getLogger(__name__)

CHECKPOINT_KEY = "class_names"

_DATASETS = ("dataloader.train.dataset", "dataloader.test.dataset")


def dataset_metadata(dataset: DictConfig) -> Metadata:
    """Find what detectron2 knows of a config's data set, which is registered if it is not yet.

    Args:
        dataset: such as ``cfg.dataloader.train.dataset``, with ``names``: a name, several (of which
            the first is taken), or a call that registers a data set and returns its name.

    Returns:
        Its metadata; ``thing_classes`` may be missing until the data set has been read.

    Raises:
        ConfigError: its files do not exist.
    """
    names = instantiate(dataset.names)
    return MetadataCatalog.get(names if isinstance(names, str) else names[0])


def config_class_names(cfg: DictConfig, read: bool = False) -> list[str] | None:
    """Take the class names of a config's training set, or of its test set.

    Args:
        cfg: the config.
        read: whether to read the annotations of a data set whose names are not known before.

    Returns:
        The names by class index; None where no data set tells them, or its files are not there.
    """
    for key in _DATASETS:
        dataset = try_get_key(cfg, key)
        if not isinstance(dataset, DictConfig) or dataset.get("names") is None:
            continue
        try:
            metadata = dataset_metadata(dataset)
            names = _thing_classes(metadata, read)
        except (DetrexError, OSError, OmegaConfBaseException) as error:
            logger.info("%s tells no class names: %s", key, error)
            continue
        if names:
            return [str(name) for name in names]
    return None


def checkpoint_class_names(checkpoint: Mapping[str, Any]) -> list[str] | None:
    """Take the class names out of a checkpoint.

    Args:
        checkpoint: what `detrex.checkpoint.read_checkpoint` returned.

    Returns:
        The names by class index; None where it has none.
    """
    names = checkpoint.get(CHECKPOINT_KEY)
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    return None


def named_metadata(name: str, option: str) -> Metadata:
    """Find the metadata of a data set by its name, reading its annotations where need be.

    Args:
        name: as registered with detectron2.
        option: what the user gave the name to, for the error.

    Returns:
        Metadata with ``thing_classes``.

    Raises:
        ConfigError: no data set has this name, or it has no class names.
    """
    known = {*DatasetCatalog.list(), *MetadataCatalog.list()}
    if name not in known:
        raise ConfigError(
            f"{option} {name} is no data set that detectron2 knows: name one of the {len(known)} "
            f"that are registered, or leave it out.{did_you_mean(name, known)}"
        )
    metadata = MetadataCatalog.get(name)
    try:
        names = _thing_classes(metadata, read=True)
    except (DetrexError, OSError) as error:
        raise ConfigError(
            f"{option} {name} cannot be read ({error}): correct the data set's paths."
        ) from error
    if not names:
        raise ConfigError(f"{option} {name} has no class names: name a data set of objects.")
    return Metadata(**metadata.as_dict() | {"thing_classes": list(names)})


def choose_metadata(
    cfg: DictConfig,
    checkpoint: Mapping[str, Any],
    dataset_name: str | None = None,
    option: str = "--metadata_dataset",
) -> Metadata:
    """Choose the class names to draw with: asked for, the checkpoint's, the config's, or numbers.

    The names of the config's data set count only where the model has as many classes.

    Args:
        cfg: the config; its data set's annotations are read where they alone tell the names.
        checkpoint: what the weights' file holds; may be empty.
        dataset_name: the data set that the user asks for, or None.
        option: what the user gave it to.

    Returns:
        Metadata, without ``thing_classes`` where nothing tells the names.

    Raises:
        ConfigError: ``dataset_name`` is unknown, or has no class names.
    """
    _, count = num_classes_of(cfg)
    if dataset_name:
        config_class_names(cfg)  # registers the config's own data sets
        metadata = named_metadata(dataset_name, option)
        names, origin = metadata.thing_classes, f"{option} {dataset_name}"
    else:
        names, origin = checkpoint_class_names(checkpoint), "The checkpoint"
        if not names and (names := config_class_names(cfg, read=True)):
            origin = "The config's data set"
            if count is not None and count != len(names):
                logger.warning(
                    "The model has %d classes and the config's data set %d, so that its class "
                    "names are not used: name the right data set by %s.",
                    *(count, len(names), option),
                )
                names = None
        metadata = Metadata(name=origin, **({"thing_classes": names} if names else {}))
    if not names:
        logger.warning("Nothing tells the classes' names, so that their numbers are drawn.")
    elif count is not None and count != len(names):
        logger.warning(
            "%s has %d class names, but the model has %d classes: the names may be wrong.",
            *(origin, len(names), count),
        )
    return metadata


def _thing_classes(metadata: Metadata, read: bool) -> Sequence[Any] | None:
    """The names that metadata hold, after reading the data set where that is wanted and needed."""
    names = metadata.get("thing_classes", None)
    if names or not read or metadata.name not in DatasetCatalog.list():
        return names
    dataset = DatasetCatalog[metadata.name]
    if isinstance(dataset, CocoJson):  # for the names the pictures need not be here
        document = read_document(dataset.json_file)
        check_names(document)
        document.raise_errors()
        return class_names(document)
    dataset()
    return metadata.get("thing_classes", None)
