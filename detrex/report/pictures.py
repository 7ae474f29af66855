"""The worst pictures, truth beside predictions, as pictures within the page."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata
from PIL import Image, features

from detrex.data.coco.objects import drawable_outline
from detrex.data.drawing import as_mask, draw_boxes, keypoints_of
from detrex.data.pictures import read_image
from detrex.errors import PictureError
from detrex.report.confusion import Confusion, is_ignored, pairs_of
from detrex.report.detections import LEAST_SCORE, Columns, DataSet, rows_of

RIGHT, FAILED, OTHER = (66, 212, 244), (255, 140, 26), (240, 50, 230)
"""Colours: found as what it is; missed or of nothing; found as something else."""

_LONGEST_SIDE = 640
_LEAST_SIDE = 320
_QUALITY = 78

Rows = Mapping[int, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Drawn:
    """A picture of the page.

    Attributes:
        name: of its file.
        truth: a ``data:`` address, and what is in it in words.
        found: likewise of the predictions.
        summary: what was found and what not, in numbers.
    """

    name: str
    truth: tuple[str, str]
    found: tuple[str, str]
    summary: str


def rich_rows(file: Path, data: DataSet, pictures: Iterable[int]) -> Rows:
    """Read the rows of some pictures again, with their outlines and keypoints.

    Args:
        file: of COCO results, which `read_detections` has read.
        data: the data set.
        pictures: the places of the pictures.

    Returns:
        The rows by place of the picture, by falling score.
    """
    wanted = {data.images[place]["id"]: place for place in pictures}
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows_of(file):
        if row["score"] >= LEAST_SCORE and row["image_id"] in wanted:
            rows.setdefault(wanted[row["image_id"]], []).append(row)
    for found in rows.values():
        found.sort(key=lambda row: -row["score"])
    return rows


def draw(
    place: int,
    data: DataSet,
    found: Columns,
    confusion: Confusion,
    *,
    image_root: str,
    value_range: Sequence[float] | None = None,
    rich: Rows | None = None,
) -> Drawn:
    """Draw what is in a picture, and what was found in it.

    Args:
        place: of the picture.
        data: the data set.
        found: the detections of all pictures.
        confusion: gives the score threshold.
        image_root: the folder of the pictures.
        value_range: see :func:`detrex.data.pictures.read_image`.
        rich: rows with outlines and keypoints, see `rich_rows`; those of the truth are drawn, too.

    Returns:
        Both pictures; objects that are missed, and detections that are wrong, stand out.

    Raises:
        PictureError: the file is not there or cannot be read, or what is in it cannot be drawn.
    """
    record = data.images[place]
    name = record.get("file_name")
    if not isinstance(name, str):
        raise PictureError(f"the record of image id {record['id']} has no file_name")
    image = read_image(str(Path(image_root, name)), "RGB", value_range)
    everything, here = data.truth.of(place), found.of(place)
    here = here.taken(here.scores >= confusion.threshold)
    is_object = everything.scores > 0
    objects = everything.taken(is_object)
    matched = pairs_of(objects, here)
    of_object, of_detection = dict(matched), {column: row for row, column in matched}
    ignored = is_ignored(everything, here)
    names = data.names

    truth_texts, found_texts = [], []
    for row, kind in enumerate(objects.kind):
        other = here.kind[of_object[row]] if row in of_object else None
        truth_texts.append(_outcome(names[kind], kind, other, names, "missed"))
    for column, (kind, score) in enumerate(zip(here.kind, here.scores, strict=True)):
        other = objects.kind[of_detection[column]] if column in of_detection else None
        text, colour = _outcome(names[kind], kind, other, names, "false")
        if ignored[column] and other is None:
            text, colour = f"{names[kind]} (in a crowd)", RIGHT
        found_texts.append((f"{text} {score:.0%}", colour))

    rows = (rich or {}).get(place, ())[: len(here.kind)]
    kept = [key for key in ("segmentation", "keypoints") if any(key in row for row in rows)]
    annotations = [
        {key: one[key] for key in kept if key in one}
        for one in data.annotations.get(place, ())
        if not one.get("iscrowd", 0)
    ]
    try:
        pictures = [
            _picture(image, objects.boxes, truth_texts, annotations if kept else ()),
            _picture(image, here.boxes, found_texts, rows),
        ]
    except (TypeError, ValueError, OverflowError) as error:
        raise PictureError(f"{name}: its objects cannot be drawn ({error!r:.100})") from error
    return Drawn(
        name=name,
        truth=(pictures[0], f"truth: {_counted(names[k] for k in objects.kind)}"),
        found=(pictures[1], f"predictions: {_counted(names[k] for k in here.kind)}"),
        summary=f"{confusion.right[place]} right, {confusion.missed[place]} missed, "
        f"{confusion.wrong[place]} wrong",
    )


def as_address(picture: np.ndarray) -> str:
    """Write a picture as an address that holds it.

    Args:
        picture: uint8 ``(H, W, 3)``, RGB.

    Returns:
        A ``data:`` address of a WebP file, or of a JPEG file where Pillow knows no WebP.
    """
    kind = "webp" if features.check("webp") else "jpeg"
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _outcome(
    name: str, kind: int, other: int | None, names: Sequence[str], alone: str
) -> tuple[str, tuple[int, int, int]]:
    """A label and a colour for an object, or for a detection, with what it is paired with."""
    if other is None:
        return f"{alone}: {name}", FAILED
    return (name, RIGHT) if other == kind else (f"{name}, not {names[other]}", OTHER)


def _picture(
    image: np.ndarray,
    boxes: np.ndarray,
    texts: Sequence[tuple[str, tuple[int, int, int]]],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Draw labelled boxes, and what rows of COCO's have besides, on a picture of a bounded size."""
    height, width = image.shape[:2]
    factor = min(1.0, _LONGEST_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(Image.fromarray(image.astype(np.uint8)).resize(size))
    metadata = Metadata(
        # Two at least, since the one class of a data set is not written.
        thing_classes=[*(text for text, _ in texts), ""],
        thing_colors=[*(colour for _, colour in texts), RIGHT],
    )
    points = keypoints_of(rows)
    drawn = draw_boxes(
        small,
        boxes * factor,
        range(len(texts)),
        metadata=metadata,
        min_side=_LEAST_SIDE,
        masks=[
            as_mask(drawable_outline(row.get("segmentation"), image.shape[:2]), image.shape[:2])
            for row in rows
        ],
        keypoints=None if points is None else points * [factor, factor, 1],
    )
    return as_address(drawn)


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
