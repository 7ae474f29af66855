"""Ids: of one type, each given once, and every reference of an annotation leads somewhere."""

import re
from collections import defaultdict
from typing import Any, Literal

import numpy as np

from detrex.data.coco.document import Document, Record, is_writable, listed, shorten

_INTEGER = re.compile(r"\s*[+-]?\d{1,18}\s*")
_MOST = 1 << 53  # beyond, evaluations that compute with floats take one id for another
_REFERENCES = {"images": "image_id", "categories": "category_id"}


def check_image_ids(document: Document) -> None:
    """Bring the images' ids to one type, and find the image of every annotation.

    Ids that are texts throughout stay so. An image that is listed twice alike is kept once.

    Args:
        document: ``images``, ``annotations`` and ``image_index`` are mended in place.
    """
    _unify_types(document, "images")
    _merge_twins(document)
    place = {record["id"]: i for i, record in enumerate(document.images)}
    used = document.column("annotations", "image_id")
    found = (place.get(value, -1) for value in used)
    document.image_index = np.fromiter(found, np.int64, len(used))
    document.report(
        *("error", "unknown-image", "annotations"),
        np.flatnonzero(document.image_index < 0),
        "image_id is none of the images",
        "list the image, or remove the annotation",
        ["image_id"],
    )


def check_category_ids(document: Document) -> None:
    """Bring the categories' ids to integers, and find unknown ones in the annotations.

    Args:
        document: ``categories`` and ``annotations`` are mended in place.
    """
    _unify_types(document, "categories")
    for key, same in _groups(document.column("categories", "id")).items():
        names = [document.categories[i].get("name") for i in same]
        document.tell(
            *("error", "duplicate-category-id"),
            f"category id {shorten(key)} stands for {listed(names)}",
            "give each category an id of its own",
            len(same),
        )
    _number_named_categories(document)
    known = {record["id"] for record in document.categories}
    used = document.column("annotations", "category_id")
    document.report(
        *("error", "unknown-category", "annotations"),
        [i for i, v in enumerate(used) if v not in known or type(v) is bool],
        "category_id is none of the categories",
        f"the categories' ids are {listed(sorted(known, key=str))}; correct one of the two",
        ["category_id"],
    )


def check_annotation_ids(document: Document) -> None:
    """Number the annotations anew where their ids cannot serve, and keep twins once.

    pycocotools takes the id 0 for "not matched", and keeps one annotation of each id. This is the
    last check of annotations, for findings name them by the ids of the file.

    Args:
        document: its annotations' ``id`` is mended in place, and ``kept``.
    """
    ids = document.column("annotations", "id")
    if all(type(value) is int and value < _MOST for value in ids):
        if not ids or (min(ids) > 0 and len(set(ids)) == len(ids)):
            return
        _report_repeated_ids(document, ids)
        if min(ids) <= 0:
            document.report(
                *("note", "annotation-id-below-1", "annotations"),
                [i for i, value in enumerate(ids) if value <= 0],
                "the id is below 1, which the evaluation takes for 'not matched'",
                "all were numbered anew from 1 for the evaluation",
            )
    else:
        document.report(
            *("note", "annotation-id-type", "annotations"),
            [i for i, value in enumerate(ids) if type(value) is not int or value >= _MOST],
            "the id is missing, or no integer below 2^53",
            "all were numbered anew from 1 for the evaluation",
        )
        _report_repeated_ids(document, [repr(value) for value in ids if value is not None])
    document.changed = True
    for number, record in enumerate(document.annotations, start=1):
        record["id"] = number


def _report_repeated_ids(document: Document, ids: list[Any]) -> None:
    if len(ids) != len(document.annotations):  # some have none: no two can be told to be the same
        return
    twins: list[int] = []
    clashing: list[int] = []
    for same in _groups(ids).values():
        first: dict[str, int] = {}
        for i in same:
            first.setdefault(_content(document.annotations[i]), i)
        kept = set(first.values())
        twins += [i for i in same if i not in kept]
        if len(kept) > 1:
            clashing += kept
    document.report(
        *("warning", "annotation-twice", "annotations"),
        twins,
        "the same object is listed again under the same id",
        "it was kept once",
    )
    document.kept[twins] = False
    document.report(
        *("warning", "duplicate-annotation-id", "annotations"),
        sorted(clashing),
        "the id is that of another annotation, too",
        "all were numbered anew from 1; files that were merged may number alike",
    )


def _content(annotation: Record) -> str:
    return repr([annotation.get(key) for key in ("image_id", "category_id", "bbox")])


def _unify_types(document: Document, part: Literal["images", "categories"]) -> None:
    """Make the ids of images or categories, and the references to them, comparable."""
    key = _REFERENCES[part]
    records = getattr(document, part)
    defined, used = document.column(part, "id"), document.column("annotations", key)
    types = set(map(type, defined)) | set(map(type, used))
    small = types <= {int} and all(-_MOST < value < _MOST for value in defined + used)
    if small or (types <= {str} and part == "images" and all(map(is_writable, defined))):
        return
    texts = all(isinstance(value, str) for value in defined + used)
    numbers = [_as_integer(value) for value in defined]
    if texts and (None in numbers or len(set(numbers)) < len(set(defined))):
        return  # names, or numbers with zeros that tell them apart
    _write_ids(document, part, records, "id", defined)
    _write_ids(document, "annotations", document.annotations, key, used)
    left = [i for i, record in enumerate(records) if _as_integer(record.get("id")) is None]
    document.report(
        *("error", f"{part}-id-type", part),
        left,
        "the id is no integer below 2^53, while other ids or references are",
        "give each an integer of its own",
        ["id"],
    )
    if left:
        _drop(document, part, left)


def _write_ids(
    document: Document, part: Any, records: list[Record], key: str, values: list[Any]
) -> None:
    """Write the integers that ids stand for, and say how many were written otherwise."""
    numbers = [_as_integer(value) for value in values]
    document.write_integers(f"{part}-{key}-text", part, records, key, values, numbers)
    for record in records:  # what cannot be looked up in a table
        if isinstance(record.get(key), (list, dict)):
            record[key] = None


def _as_integer(value: Any) -> int | None:
    """The integer that an id stands for, or None."""
    if type(value) is int:
        return value if -_MOST < value < _MOST else None
    if type(value) is float and value.is_integer() and abs(value) < _MOST:
        return int(value)
    if type(value) is str and _INTEGER.fullmatch(value):
        return int(value)
    return None


def _merge_twins(document: Document) -> None:
    """Keep an image that is listed twice alike once; two images of one id are an error."""
    groups = list(_groups(document.column("images", "id")).values())
    if not groups:
        return
    again: list[int] = []
    clashing = []
    for same in groups:
        first, *others = (document.images[i] for i in same)
        if all(other == first for other in others):
            again += same[1:]
        else:
            clashing.append(same)
    document.report(
        *("warning", "image-twice", "images"),
        again,
        "the same image is listed again",
        "it was kept once",
    )
    if clashing:
        names = [document.images[i].get("file_name") for i in clashing[0]]
        key = shorten(document.images[clashing[0][0]]["id"])
        document.tell(
            "error",
            "duplicate-image-id",
            f"image id {key} stands for {listed(names)}"
            + (f" (first of {len(clashing)} such ids)" if len(clashing) > 1 else ""),
            "give each image an id of its own; files that were merged may number alike",
            len(clashing),
            f"image {key}",
        )
    _drop(document, "images", [i for same in groups for i in same[1:]])
    document.changed = True


def _number_named_categories(document: Document) -> None:
    """Give categories whose ids are names throughout the numbers from 1, in the names' order."""
    if not any(isinstance(record["id"], str) for record in document.categories):
        return
    names = sorted({record["id"] for record in document.categories})
    number = {name: i for i, name in enumerate(names, start=1)}
    document.report(
        *("warning", "category-id-text", "categories"),
        range(len(document.categories)),
        "the id is a text",
        "they were numbered from 1 in their order",
    )
    for record in document.categories:
        record["id"] = number[record["id"]]
    for record in document.annotations:
        record["category_id"] = number.get(record.get("category_id"), record.get("category_id"))
    document.changed = True


def _groups(values: list[Any]) -> dict[Any, list[int]]:
    """The positions of each value that is there more than once."""
    if len(set(values)) == len(values):
        return {}
    groups: dict[Any, list[int]] = defaultdict(list)
    for position, value in enumerate(values):
        groups[value].append(position)
    return {value: same for value, same in groups.items() if len(same) > 1}


def _drop(document: Document, part: Any, positions: list[int]) -> None:
    dropped = set(positions)
    kept = [r for i, r in enumerate(getattr(document, part)) if i not in dropped]
    setattr(document, part, kept)
