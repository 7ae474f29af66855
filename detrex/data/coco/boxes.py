"""Boxes: four finite numbers that describe a part of the picture, as x, y, width and height."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from detrex.data.coco.document import Document

TOLERANCE = 1.0
"""How many pixels a box may reach out of its picture: COCO's own do, by rounding."""

_EMPTY = 1e-5  # pixels; detectron2 takes narrower boxes for empty
_FEW = 20  # boxes, of which all must agree with a convention
_BOUNDLESS = 1e15  # pixels


def check_boxes(document: Document) -> None:
    """Check every box against its picture, and the boxes as a whole against other conventions.

    Boxes that are empty or outside of their picture are left out of training and evaluation alike,
    those that reach out of it by more than `TOLERANCE` are clipped.

    Args:
        document: after `check_image_ids` and `check_sizes`; ``annotations`` and ``kept`` are
            mended in place.
    """
    raw = document.column("annotations", "bbox")
    boxes = _as_numbers(document, raw)
    _report_unusable(document, boxes)
    sizes = _picture_sizes(document)
    usable = np.flatnonzero(document.kept & (document.image_index >= 0))
    boxes, sizes = boxes[usable], sizes[usable]
    if _is_of_another_convention(document, usable, boxes, sizes):
        return
    _leave_out(document, usable, boxes, sizes)
    _clip(document, usable, boxes, sizes)


def _as_numbers(document: Document, raw: list[Any]) -> np.ndarray:
    """The boxes as an array (N, 4), NaN where a box is none; numbers written as texts are read."""
    if set(map(type, raw)) <= {list} and set(map(len, raw)) <= {4}:
        types = set(map(type, chain.from_iterable(raw)))
        if types <= {int, float}:
            try:
                values = np.fromiter(chain.from_iterable(raw), np.float64, 4 * len(raw))
                return values.reshape(-1, 4)
            except OverflowError:  # an integer beyond 1e308
                pass
    boxes, bad, texts = np.full((len(raw), 4), np.nan), [], []
    for position, box in enumerate(raw):
        numbers = _four_numbers(box)
        if numbers is None:
            bad.append(position)
            continue
        boxes[position] = numbers
        if any(type(value) is str for value in box):
            texts.append(position)
            document.annotations[position]["bbox"] = numbers
    document.report(
        *("error", "box-form", "annotations"),
        bad,
        "bbox is not four numbers [x, y, width, height]",
        "write them, or remove the annotation",
        ["bbox"],
    )
    document.report(
        *("warning", "box-text", "annotations"),
        texts,
        "bbox holds texts",
        "they were read as numbers",
        ["bbox"],
    )
    document.changed |= bool(texts)
    return boxes


def _four_numbers(box: Any) -> list[float] | None:
    if type(box) is not list or len(box) != 4:
        return None
    if any(type(value) not in (int, float, str) for value in box):
        return None
    try:
        return [float(value) for value in box]
    except (ValueError, OverflowError):
        return None


def _report_unusable(document: Document, boxes: np.ndarray) -> None:
    infinite = document.kept & ~np.isfinite(boxes).all(axis=1)
    document.report(
        *("error", "box-not-finite", "annotations"),
        np.flatnonzero(infinite),
        "bbox has a NaN or an infinite number",
        "correct it, or remove the annotation",
        ["bbox"],
    )
    document.report(
        *("error", "box-negative", "annotations"),
        np.flatnonzero(document.kept & (boxes[:, 2:] < 0).any(axis=1)),
        "the box's width or height is negative",
        "write [x, y, width, height] from the left upper corner",
        ["bbox"],
    )


def _picture_sizes(document: Document) -> np.ndarray:
    """Width and height of the picture of every annotation, (N, 2); boundless where unknown."""
    known = [
        (i["width"], i["height"])
        if all(type(i.get(k)) is int and i[k] < _BOUNDLESS for k in ("width", "height"))
        else (0, 0)
        for i in document.images
    ]
    table = np.array([*known, (0, 0)], dtype=np.float64)
    table[(table <= 0).any(axis=1)] = _BOUNDLESS
    return table[document.image_index]


def _is_of_another_convention(
    document: Document, places: np.ndarray, boxes: np.ndarray, sizes: np.ndarray
) -> bool:
    """Whether the boxes are evidently not [x, y, width, height] in pixels; that is an error."""
    if not len(boxes):
        return False
    reach = boxes[:, :2] + boxes[:, 2:] - sizes
    out = (reach > TOLERANCE).any(axis=1)
    relative = (boxes >= 0).all(axis=1) & (boxes <= 1).all(axis=1) & (sizes > 4).all(axis=1)
    if relative.mean() >= 0.5:
        what = "all four numbers of bbox lie in 0..1, as shares of the picture's size do"
        cure = "multiply x and width by the picture's width, y and height by its height"
        _report_convention(document, "box-relative", places[relative], what, cure)
        return True
    document.report(
        *("warning", "box-relative-few", "annotations"),
        places[relative & (boxes[:, 2:] > _EMPTY).all(axis=1)],
        "all four numbers of bbox lie in 0..1, less than a pixel",
        "used as they are; where they are shares of the picture's size, write pixels",
        ["bbox"],
    )
    if _fits_area_as_corners(document, places, boxes):
        what = "area is that of corners [x1, y1, x2, y2] (xyxy), not of [x, y, width, height]"
        cure = "write width and height, x2 - x1 and y2 - y1"
        _report_convention(document, "box-corners", places, what, cure)
        return True
    if _fits_corners(boxes, sizes, out, reach):
        what = (
            "the box reaches out of the picture as [x, y, width, height], while all are inside as "
            "corners [x1, y1, x2, y2] (xyxy)"
        )
        cure = "write width and height, x2 - x1 and y2 - y1"
        _report_convention(document, "box-corners", places[out], what, cure)
        return True
    if len(boxes) >= 4 and out.mean() >= 0.5:
        what = "the box reaches out of the picture"
        cure = "correct bbox, or the images' width and height, which may be of another resolution"
        _report_convention(document, "box-scale", places[out], what, cure)
        return True
    return False


def _report_convention(
    document: Document, kind: str, places: np.ndarray, what: str, cure: str
) -> None:
    document.report("error", kind, "annotations", places, what, cure, ["bbox"])


def _fits_corners(boxes: np.ndarray, sizes: np.ndarray, out: np.ndarray, reach: np.ndarray) -> bool:
    """Whether boxes are corners: as xywh often far out of the picture, as xyxy always inside."""
    if out.mean() < 0.1:
        return False
    corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + TOLERANCE)
    by_far = np.median((reach / sizes).max(axis=1)[out]) > 0.05
    return bool(by_far and corners.all(axis=1).mean() >= (1 if len(boxes) < _FEW else 0.95))


def _fits_area_as_corners(document: Document, places: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether the areas in the file are width times height only if boxes are read as corners."""
    values = [document.annotations[i].get("area") for i in places]
    if len(values) < 4 or not set(map(type, values)) <= {int, float}:
        return False
    areas = np.array([float(value) if abs(value) < _BOUNDLESS else np.nan for value in values])
    spans = boxes[:, 2:] - boxes[:, :2]
    as_corners = (spans > 0).all(axis=1) & np.isclose(spans.prod(axis=1), areas, rtol=0.01)
    as_sizes = np.isclose(boxes[:, 2:].prod(axis=1), areas, rtol=0.01)
    return bool(as_corners.mean() >= 0.95 and (as_corners & ~as_sizes).mean() >= 0.5)


def _leave_out(
    document: Document, places: np.ndarray, boxes: np.ndarray, sizes: np.ndarray
) -> None:
    """Leave out what no detector can find: boxes without an inside, or not in the picture."""
    empty = (boxes[:, 2:] <= _EMPTY).any(axis=1)
    outside = (boxes[:, :2] >= sizes).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] <= 0).any(axis=1)
    for kind, mask, what in (
        ("box-empty", empty, "the box has no width or no height"),
        ("box-outside", outside & ~empty, "the box is outside of its picture"),
    ):
        document.report(
            *("warning", kind, "annotations"),
            places[mask],
            what,
            "left out of training and evaluation",
            ["bbox"],
        )
    document.kept[places[empty | outside]] = False
    document.changed |= bool((empty | outside).any())


def _clip(document: Document, places: np.ndarray, boxes: np.ndarray, sizes: np.ndarray) -> None:
    kept = document.kept[places]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    inside = np.concatenate([np.maximum(corners[:, :2], 0), np.minimum(corners[:, 2:], sizes)], 1)
    out = kept & (np.abs(corners - inside) > TOLERANCE).any(axis=1)
    if not out.any():
        return
    document.report(
        *("warning", "box-reaches-out", "annotations"),
        places[out],
        f"the box reaches out of its picture{_mixed_hint(boxes[out], sizes[out])}",
        "clipped to it in training and evaluation",
        ["bbox"],
    )
    clipped = np.concatenate([inside[:, :2], inside[:, 2:] - inside[:, :2]], axis=1)[out]
    _write_boxes(document, places[out], clipped)


def _mixed_hint(boxes: np.ndarray, sizes: np.ndarray) -> str:
    """A remark where the boxes that reach out would all be inside as corners."""
    corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + TOLERANCE)
    return ", and would be inside as corners (xyxy)" if corners.all() else ""


def _write_boxes(document: Document, places: Sequence[int] | np.ndarray, boxes: np.ndarray) -> None:
    document.changed = True
    for position, box in zip(places, boxes.tolist(), strict=True):
        document.annotations[position]["bbox"] = box
