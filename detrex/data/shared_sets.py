"""A loader's data set, read by one process of each machine for all ranks there."""

import contextlib
from collections.abc import Iterator
from typing import Any

from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from omegaconf import DictConfig

from detrex.config import try_get_key
from detrex.config.building import build_part
from detrex.config.lazy_call import is_call, target_of
from detrex.data.loader import build_train_loader
from detrex.data.preparation import registered_sets
from detrex.data.stored_records import StoredRecords, store
from detrex.errors import ConfigError
from detrex.utils.machines import once_a_machine

_TAKE_ANY_DATASET = (
    build_train_loader,
    build_detection_train_loader,
    build_detection_test_loader,
)


def shared_dataset(cfg: DictConfig, key: str) -> Any:
    """Build the data set of a loader so that its records are once in a machine's memory.

    Every rank must call this. Where the call gives a list or `StoredRecords`, it is made by one
    rank of each machine; the others open what that one stored, and learn what it wrote into
    detectron2's catalogue of metadata. Anything else that a call gives, every rank builds for
    itself.

    Args:
        cfg: the config.
        key: the loader's place in it, ``"dataloader.train"`` or ``"dataloader.test"``.

    Returns:
        The data set: `StoredRecords` in the place of a list; None where the loader is another
        function than detrex's and detectron2's, or its data set is not given by a call.

    Raises:
        DetrexError: the data set cannot be built.
    """
    node: Any = try_get_key(cfg, key)
    if not isinstance(node, DictConfig) or not is_call(node.get("dataset")):
        return None
    if target_of(node) not in _TAKE_ANY_DATASET:
        return None
    names = registered_sets(cfg, "test" if key.endswith("test") else "train")
    own: list[Any] = []

    def read() -> tuple[StoredRecords | None, dict[str, dict[str, Any]]]:
        with named_missing_files(key):
            own.append(build_part(node.dataset, f"{key}.dataset"))
        if not isinstance(own[0], list | StoredRecords):
            return None, {}
        records = own.pop()
        if isinstance(records, list):
            records = store(records)
        return records, {name: MetadataCatalog.get(name).as_dict() for name in names}

    records, metadata = once_a_machine(read)
    for name, known in metadata.items():
        vars(MetadataCatalog.get(name)).update(known)
    if records is not None:
        return records
    return own[0] if own else build_part(node.dataset, f"{key}.dataset")


@contextlib.contextmanager
def named_missing_files(key: str) -> Iterator[None]:
    """Say in one sentence which of a loader's files does not exist.

    Args:
        key: the loader's place in the config.

    Raises:
        ConfigError: the block raised one that was caused by a missing file.
    """
    try:
        yield
    except ConfigError as error:
        cause = error.__cause__
        if not isinstance(cause, FileNotFoundError):
            raise
        raise ConfigError(
            f"{key} needs {cause.filename or cause}, which does not exist: correct the dataset's "
            "paths, or point the environment variable DETECTRON2_DATASETS at detectron2's datasets."
        ) from cause
