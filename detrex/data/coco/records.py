"""From a mended document to what training reads, and to the file that the evaluation reads."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from detrex.data.coco.classes import class_names
from detrex.data.coco.document import Document, Record
from detrex.data.coco.keypoints import keypoint_names
from detrex.data.coco.objects import compressed
from detrex.data.keypoints import hflip_indices
from detrex.errors import DataError
from detrex.files import write_atomically

_COPIED = ("iscrowd", "bbox")
_Connection = tuple[str, str, tuple[int, int, int]]  # two keypoints, and a colour


def standard_records(document: Document, image_root: str) -> list[dict[str, Any]]:
    """Write a document as detectron2's standard dicts.

    Args:
        document: after all checks, without errors.
        image_root: the folder that file names are relative to.

    Returns:
        One dict an image, in the order of their ids: ``file_name``, ``height``, ``width``,
        ``image_id``, and ``annotations`` with boxes XYWH in pixels and classes numbered from 0.
        Boxes and outlines are those of the document itself.
    """
    number = contiguous_ids(document)
    records = [
        {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
        for image in document.images
    ]
    for index, kept, annotation in zip(
        document.image_index.tolist(), document.kept.tolist(), document.annotations, strict=True
    ):
        if kept:
            records[index]["annotations"].append(standard_object(annotation, number))
    return sorted(records, key=lambda record: record["image_id"])


def contiguous_ids(document: Document) -> dict[int, int]:
    """Number the categories' ids from 0, in their order."""
    ids = sorted(category["id"] for category in document.categories)
    return {key: i for i, key in enumerate(ids)}


def metadata_of(document: Document) -> dict[str, Any]:
    """Describe the classes as detectron2's metadata do.

    Args:
        document: after all checks.

    Returns:
        ``thing_classes`` and ``thing_dataset_id_to_contiguous_id``; where the categories name
        keypoints also ``keypoint_names``, ``keypoint_flip_map`` of those whose names differ by
        left and right, and ``keypoint_connection_rules`` of the skeleton, in white.
    """
    metadata: dict[str, Any] = {
        "thing_classes": class_names(document),
        "thing_dataset_id_to_contiguous_id": contiguous_ids(document),
    }
    if names := keypoint_names(document):
        pairs = enumerate(hflip_indices(names))
        flips = [(names[one], names[other]) for one, other in pairs if one < other]
        metadata |= {"keypoint_names": names, "keypoint_flip_map": flips}
        metadata["keypoint_connection_rules"] = _connections(document, names)
    return metadata


def _connections(document: Document, names: list[str]) -> list[_Connection]:
    """The pairs of keypoints that a skeleton joins; COCO counts them from 1."""
    skeletons = [c["skeleton"] for c in document.categories if isinstance(c.get("skeleton"), list)]
    numbers = range(1, len(names) + 1)
    pairs = [p for p in (skeletons or [[]])[0] if isinstance(p, list) and len(p) == 2]
    return [
        (names[one - 1], names[other - 1], (255, 255, 255))
        for one, other in pairs
        if one in numbers and other in numbers
    ]


def standard_object(annotation: Record, number: dict[int, int]) -> dict[str, Any]:
    """Write one annotation as detectron2 has it.

    Args:
        annotation: in COCO's terms, after all checks; its crowd flag is there.
        number: the class of each category id.
    """
    record = {key: annotation[key] for key in _COPIED}
    record["category_id"] = number[annotation["category_id"]]
    record["bbox_mode"] = BoxMode.XYWH_ABS
    if outline := annotation.get("segmentation"):
        record["segmentation"] = compressed(outline)
    if points := annotation.get("keypoints"):
        # COCO counts the pixel that a keypoint is in; detectron2 takes that pixel's middle.
        record["keypoints"] = [v if i % 3 == 2 else v + 0.5 for i, v in enumerate(points)]
    return record


def evaluation_file(document: Document, folder: str | os.PathLike[str], name: str) -> str:
    """Give the file to evaluate with: the user's own, or a mended copy where it cannot serve.

    A copy is named by its content and appears at once or not at all, so that any number of
    processes may write it.

    Args:
        document: after all checks, without errors.
        folder: where a copy goes.
        name: what the data set is called.

    Returns:
        The path.

    Raises:
        DataError: the copy cannot be written.
    """
    if not document.changed:
        return document.path
    if not document.evaluation_file:
        text = json.dumps(document.content())
        stem = re.sub(r"[^\w.-]+", "_", name)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        document.evaluation_file = _write_once(Path(folder) / f"{stem}-{digest}.json", text)
    return document.evaluation_file


def _write_once(file: Path, text: str) -> str:
    if file.is_file():
        return str(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda stream: stream.write(text.encode()))
    except OSError as error:
        raise DataError(
            f"{file}, the mended copy to evaluate with, cannot be written ({error.strerror}): "
            "choose another train.output_dir."
        ) from error
    return str(file)
