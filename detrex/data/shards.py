"""Data sets in tar files: WebDataset's shards of pictures, with a JSON file for each.

    train-000.tar: 000123.jpg, 000123.json, 000124.jpg, 000124.json, ...

A shard is looked through once, when the data set is built; after that its pictures are read where
they lie, so that a batch is found and resumed as in any other data set. Members of other kinds are
passed over: nothing in a shard is unpickled, unpacked to the disk, or run. (The package webdataset
reads shards from front to back, unpickles members named so, and runs what ``pipe:`` names; a run
could not go on in the midst of one.)
"""

import glob
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data

from detrex.data.coco.classes import check_names, class_names
from detrex.data.coco.document import Document, listed, shorten
from detrex.data.coco.identity import check_category_ids
from detrex.data.coco.reading import read_document
from detrex.data.coco.records import contiguous_ids, standard_object
from detrex.data.datasets import check_num_classes
from detrex.data.picture_files import shown
from detrex.data.sampling import shuffled
from detrex.data.stored_records import Record, StoredRecords, store
from detrex.data.tars import samples_of
from detrex.errors import DataError
from detrex.threads import available_cores

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class ShardRecords(StoredRecords):
    """The records of shards, which an epoch goes through a few shards at a time.

    Attributes:
        counts: ``(shards,)``, the number of records in each.
        mixed: how many shards are shuffled together.
    """

    counts: np.ndarray
    mixed: int

    def epoch_order(self, seed: int, epoch: int) -> np.ndarray:
        """Shuffle the shards, and the images of each ``mixed`` that follow each other.

        Args:
            seed: the run's seed.
            epoch: counts from 0.

        Returns:
            Every index once.
        """
        ends = np.cumsum(self.counts)
        shards = shuffled(np.arange(len(ends)), seed, epoch)
        order = np.concatenate([np.arange(ends[s] - self.counts[s], ends[s]) for s in shards])
        generator = np.random.default_rng([seed, epoch, 1])
        begins = np.concatenate([[0], np.cumsum(self.counts[shards])])
        for first in range(0, len(shards), self.mixed):
            last = min(first + self.mixed, len(shards))
            generator.shuffle(order[begins[first] : begins[last]])
        return order

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_shards, (*super().__reduce__(), self.counts, self.mixed)


def _with_shards(
    opened: Any, place: tuple[Any, ...], counts: np.ndarray, mixed: int
) -> ShardRecords:
    return _divided(opened(*place), counts, mixed)


def _divided(records: StoredRecords, counts: Sequence[int] | np.ndarray, mixed: int) -> Any:
    divided = ShardRecords(records.file, len(records))
    divided.counts, divided.mixed = np.asarray(counts), mixed
    return divided


def shard_records(
    shards: str | Sequence[str],
    categories: str | Sequence[str],
    *,
    num_classes: int | None = None,
    mixed: int = 16,
    filter_empty: bool = True,
) -> ShardRecords:
    """Look through shards, and give their records in detectron2's format.

    In a config it stands in the place of ``get_detection_dataset_dicts``::

        dataloader.train.dataset = L(shard_records)(
            shards="shards/train-{000..127}.tar", categories="annotations/val.json"
        )

    Each image is a picture and a JSON file of one name: an object with ``width`` and ``height`` in
    pixels and ``annotations`` as in COCO's files (``bbox`` as ``[x, y, width, height]`` in pixels,
    ``category_id``; ``iscrowd``, ``segmentation`` and ``keypoints`` where there are such), and
    perhaps an ``image_id``. Objects without an extent are left out.

    Args:
        shards: tar files that are not compressed: paths, or one with ``*`` or ``{000..127}``.
        categories: the names of the classes, of which ``category_id`` counts from 0; or a file in
            COCO's format, such as that of the validation, whose categories they are.
        num_classes: the model's number of classes, to be checked; None for any.
        mixed: how many shards are shuffled together; between them an epoch reads from front to
            back, as disks and their caches like it.
        filter_empty: leave out images without an object that is no crowd.

    Returns:
        A data set of one dict an image, whose ``file_name`` is an address that detectron2's
        ``PathManager`` knows.

    Raises:
        ConfigError: there are more or fewer categories than ``num_classes``.
        DataError: there is no shard, or one of them or a record in it cannot be used.
    """
    paths = [shards] if isinstance(shards, str) else list(shards)
    name = shown(", ".join(paths))
    document = _categories(categories)
    check_num_classes(name, class_names(document), num_classes)
    files = [file for one in paths for file in _files(one)]
    missing = [file for file in files if not os.path.isfile(file)]
    if missing or not files:
        raise DataError(
            f"{shown(missing[0]) if missing else name}: no such file in {Path.cwd()}, expected "
            "shards: correct the path, which may have * or {000..127} in it."
        )
    look = _Look(files, contiguous_ids(document), filter_empty)
    workers = min(available_cores(), len(files)) if len(files) > 1 else 0
    loader = torch.utils.data.DataLoader(
        look, batch_size=None, num_workers=workers, generator=torch.Generator()
    )
    counts: list[int] = []
    records = store(_all(loader, counts))
    if not len(records):
        raise DataError(
            f"{name}: no image with an object to train on in {len(files)} shard(s): "
            "correct them, or set filter_empty=False."
        )
    return _divided(records, counts, mixed)


def _all(loader: Any, counts: list[int]) -> Iterator[Record]:
    """The records of all shards; notes how many each has."""
    for found in loader:
        if isinstance(found, str):
            raise DataError(found)
        counts.append(len(found))
        yield from found


class _Look(torch.utils.data.Dataset[Any]):
    """For each shard its records, or what is wrong with it."""

    def __init__(self, files: list[str], number: dict[int, int], filter_empty: bool) -> None:
        self.files, self.number, self.filter_empty = files, number, filter_empty

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Record] | str:
        try:
            records = [self._record(*found) for found in samples_of(self.files[index])]
        except DataError as error:
            return str(error)
        return [r for r in records if not self.filter_empty or _has_object(r)]

    def _record(self, name: str, picture: str, content: bytes) -> Record:
        try:
            record = json.loads(content)
            objects = [self._object(each) for each in record["annotations"]]
            sizes = {key: record[key] for key in ("height", "width")}
            if not all(type(value) is int and value > 0 for value in sizes.values()):
                raise ValueError(f"width and height are {record['width']!r}, {record['height']!r}")
        except Exception as error:  # a stranger's file: anything may be anywhere
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)[:150]
            raise DataError(
                f"{name} is no record of an image ({' '.join(reason.split())}): expected an object "
                "with width, height and annotations as in COCO's files; write it again."
            ) from None
        image_id = record.get("image_id", picture)
        kept = [each for each in objects if each["bbox"][2] > 0 and each["bbox"][3] > 0]
        return {"file_name": picture, **sizes, "image_id": image_id, "annotations": kept}

    def _object(self, annotation: Mapping[str, Any]) -> Record:
        box, category = annotation["bbox"], annotation["category_id"]
        if len(box) != 4 or not all(math.isfinite(value) for value in box):
            raise ValueError(f"bbox is {shorten(box)}, expected four finite numbers")
        if type(category) is not int or category not in self.number:
            raise ValueError(
                f"category_id is {shorten(category)}, expected one of {listed(list(self.number))}"
            )
        return standard_object({"iscrowd": 0, **annotation}, self.number)


def _has_object(record: Record) -> bool:
    return any(not each["iscrowd"] for each in record["annotations"])


def _files(pattern: str) -> list[str]:
    if braces := _BRACES.search(pattern):
        first, last = braces.groups()
        numbers = (f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1))
        before, after = pattern[: braces.start()], pattern[braces.end() :]
        return [file for number in numbers for file in _files(before + number + after)]
    return sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]


def _categories(categories: str | Sequence[str]) -> Document:
    if isinstance(categories, str | os.PathLike):
        document = Document(os.fspath(categories), [], [], read_document(categories).categories)
    else:
        named = [{"id": i, "name": name} for i, name in enumerate(categories)]
        document = Document("categories", [], [], named)
    check_names(document)
    check_category_ids(document)
    document.raise_errors()
    return document
