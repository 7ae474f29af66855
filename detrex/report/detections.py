"""Truth and detections of a data set as columns of numbers, whatever their number.

A file of results is read piece by piece, and of each picture as many detections are kept as COCO's
evaluation counts: 5,000 pictures with 300 detections each take a few seconds and no memory to speak
of.
"""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detrex.data.coco.reading import no_garbage_collection, read_document
from detrex.errors import DataError

LEAST_SCORE = 0.05
MOST_DETECTIONS = 100
_PIECE = 1 << 22  # characters read at once
_LONGEST_ROW = 1 << 26
_HUGE = 1e9  # pixels; as good as infinite


@dataclass(frozen=True)
class Columns:
    """Objects of all pictures, sorted by picture.

    Attributes:
        picture: the place of each one's picture, int64 ``(n,)``.
        kind: its class, by the rank of the category's id, int64 ``(n,)``.
        boxes: x0, y0, x1, y1 in pixels, float64 ``(n, 4)``.
        scores: from 0 to 1, float64 ``(n,)``; of the truth 0 for crowd regions and 1 for objects.
    """

    picture: np.ndarray
    kind: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def of(self, picture: int) -> "Columns":
        """Give the objects of one picture."""
        first, last = np.searchsorted(self.picture, [picture, picture + 1])
        return self.taken(slice(first, last))

    def taken(self, rows: Any) -> "Columns":
        """Give some of the objects, by what numpy takes as an index."""
        return Columns(self.picture[rows], self.kind[rows], self.boxes[rows], self.scores[rows])


@dataclass(frozen=True)
class DataSet:
    """A data set that was evaluated on.

    Attributes:
        images: COCO's records of the pictures.
        names: of the classes, by the rank of their ids.
        truth: the objects, and the crowd regions.
        areas: of the truth's objects in pixels, float64 ``(n,)``.
        annotations: COCO's records by the place of their picture, for those that are drawn.
        ranks: the class by the category's id.
    """

    images: Sequence[Mapping[str, Any]]
    names: tuple[str, ...]
    truth: Columns
    areas: np.ndarray
    annotations: Mapping[int, Sequence[Mapping[str, Any]]]
    ranks: Mapping[Any, int]

    def places(self) -> dict[Any, int]:
        """The place of each picture by its id."""
        return {image["id"]: place for place, image in enumerate(self.images)}


def read_data_set(json_file: str) -> DataSet:
    """Read annotations in COCO's format that an evaluation has read before.

    Args:
        json_file: the file.

    Raises:
        DataError: it is not there or no such file any more.
    """
    document = read_document(json_file)
    try:
        return _data_set(document.images, document.categories, document.annotations)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{json_file} is not as the evaluation needs it ({error!r:.100}): detrex data lists "
            "what is wrong with it."
        ) from error


def _data_set(
    images: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
) -> DataSet:
    categories = sorted(categories, key=lambda category: category["id"])
    ranks = {category["id"]: rank for rank, category in enumerate(categories)}
    places = {image["id"]: place for place, image in enumerate(images)}
    annotations = [a for a in annotations if a["image_id"] in places and a["category_id"] in ranks]
    annotations.sort(key=lambda annotation: places[annotation["image_id"]])
    grouped: dict[int, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        grouped.setdefault(places[annotation["image_id"]], []).append(annotation)
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64)
    boxes = boxes.reshape(len(annotations), 4)
    return DataSet(
        images=images,
        names=tuple(str(category.get("name", category["id"])) for category in categories),
        truth=Columns(
            np.array([places[a["image_id"]] for a in annotations], dtype=np.int64),
            np.array([ranks[a["category_id"]] for a in annotations], dtype=np.int64),
            np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
            np.array([not a.get("iscrowd", 0) for a in annotations], dtype=np.float64),
        ),
        areas=np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations], float),
        annotations=grouped,
        ranks=ranks,
    )


def read_detections(file: Path, data: DataSet) -> tuple[Columns, bool]:
    """Read a file of COCO results.

    Args:
        file: a list of rows with ``image_id``, ``category_id``, ``bbox`` and ``score``.
        data: what they were found in; rows for other pictures or classes are an error.

    Returns:
        The detections that score 0.05 or more, of each picture the 100 best, by falling score;
        and whether they have outlines or keypoints.

    Raises:
        DataError: the file cannot be read, is cut short, or is of another data set.
    """
    places, ranks = data.places(), data.ranks
    picture, kind = array("q"), array("q")
    numbers = array("d")
    rich = False
    with no_garbage_collection():
        for number, row in enumerate(rows_of(file), start=1):
            try:
                score = row["score"]
                if not score >= LEAST_SCORE:  # nor is NaN a score
                    continue
                x, y, width, height = row["bbox"]
                place, rank = places[row["image_id"]], ranks[row["category_id"]]
                if not abs(x) + abs(y) + abs(width) + abs(height) + score < _HUGE:
                    raise ValueError("a box that is not finite")
                numbers.extend((x, y, x + width, y + height, score))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise DataError(
                    f"{file}: row {number} is no detection in the annotations' pictures and "
                    f"classes ({error!r:.100}): evaluate once more."
                ) from error
            picture.append(place)
            kind.append(rank)
            rich = rich or "segmentation" in row or "keypoints" in row
    table = np.array(numbers).reshape(-1, 5)
    pictures = np.array(picture, dtype=np.int64)
    order = np.lexsort((-table[:, 4], pictures))
    found = Columns(pictures, np.array(kind, dtype=np.int64), table[:, :4], table[:, 4])
    found = found.taken(order)
    first = np.searchsorted(found.picture, found.picture)  # the first of its picture
    return found.taken(np.arange(len(first)) - first < MOST_DETECTIONS), rich


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """Read a JSON list of objects piece by piece.

    Args:
        file: the file.

    Yields:
        Its objects.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    decoder, count = json.JSONDecoder(), 0
    try:
        with file.open(encoding="utf-8") as stream:
            text, place, ended = stream.read(_PIECE), 0, False
            if not text.lstrip().startswith("["):
                raise ValueError("it does not begin with a list")
            place = text.index("[") + 1
            while True:
                place = _after_blanks(text, place)
                if text[place : place + 1] == "]":
                    return
                try:
                    row, place = decoder.raw_decode(text, place)
                except json.JSONDecodeError:
                    if ended or len(text) - place > _LONGEST_ROW:
                        raise
                    more = stream.read(_PIECE)
                    text, place, ended = text[place:] + more, 0, not more
                    continue
                if not isinstance(row, dict):
                    raise ValueError("it holds something else than objects")
                count += 1
                yield row
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}): evaluate once more with "
            "dataloader.evaluator.output_dir set to the run's folder."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file} is no list of detections behind row {count} ({str(error)[:100]}): evaluate "
            "once more."
        ) from error


def _after_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place
