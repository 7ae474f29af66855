"""What an annotation says beside its box: crowd, area, and the outline of the object."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from detrex.data.coco.document import Document, Record
from detrex.data.picture_files import max_pixels

_CROWD = {0: 0, 1: 1, "0": 0, "1": 1, None: 0, "false": 0, "true": 1}
_MOST_BITS = 30  # beyond, pycocotools shifts by more than its integers have
_LONGEST_OUTLINE = 2_000_000  # pixels; to draw it takes 100 bytes for each
_NUMBERS = {int, float}
_NOT_IGNORED = (None, 0, "0", "", "false")


def check_crowds(document: Document) -> None:
    """Make ``iscrowd`` 0 or 1, 0 where it is missing, and refuse ``ignore``.

    Args:
        document: ``annotations`` are mended in place.
    """
    ignored = [i for i, a in enumerate(document.annotations) if "ignore" in a and _ignored(a)]
    document.report(
        *("error", "ignore", "annotations"),
        ignored,
        "ignore is set, which COCO's evaluation does not heed",
        "write iscrowd=1 for a region that is neither trained on nor counted, or remove it",
        ["ignore"],
    )
    values = document.column("annotations", "iscrowd")
    if set(map(type, values)) <= {int} and set(values) <= {0, 1}:
        return
    crowds = [_as_crowd(value) for value in values]
    document.report(
        *("error", "iscrowd", "annotations"),
        [i for i, crowd in enumerate(crowds) if crowd is None],
        "iscrowd is neither 0 nor 1",
        "write 0 for an object, 1 for a region of many",
        ["iscrowd"],
    )
    filled = [i for i, c in enumerate(crowds) if c is not None and type(values[i]) is not int]
    document.report(
        *("note", "iscrowd-missing", "annotations"),
        filled,
        "iscrowd is missing or no integer",
        "it was filled in, 0 where there is none",
        ["iscrowd"],
    )
    document.changed |= bool(filled)
    for position in filled:
        document.annotations[position]["iscrowd"] = crowds[position]


def _ignored(annotation: Record) -> bool:
    value = annotation["ignore"]
    return (value.strip().lower() if isinstance(value, str) else value) not in _NOT_IGNORED


def _as_crowd(value: Any) -> int | None:
    if isinstance(value, (list, dict)):
        return None
    return _CROWD.get(value.strip().lower() if isinstance(value, str) else value)


def check_areas(document: Document) -> None:
    """Fill in areas that are missing or not above 0 by the box's.

    Areas decide over small, medium and large in the evaluation.

    Args:
        document: after `check_boxes`; ``annotations`` are mended in place.
    """
    values = document.column("annotations", "area")
    if set(map(type, values)) <= {int, float}:
        areas = np.array([float(v) if abs(v) < 1e300 else np.nan for v in values])
    else:
        areas = np.array([_as_area(value) for value in values])
    texts = [i for i, value in enumerate(values) if type(value) is str and areas[i] > 0]
    for position in texts:
        document.annotations[position]["area"] = float(areas[position])
    filled = np.flatnonzero(document.kept & ~(areas > 0))
    document.report(
        *("note", "area-missing", "annotations"),
        filled,
        "area is missing or not above 0",
        "it was filled in by width times height of the box",
        ["area"],
    )
    document.changed |= bool(len(filled) or texts)
    for position in filled.tolist():
        _, _, width, height = document.annotations[position]["bbox"]
        document.annotations[position]["area"] = width * height


def _as_area(value: Any) -> float:
    try:
        area = float(value) if type(value) in (int, float, str) else np.nan
    except (ValueError, OverflowError):
        return np.nan
    return area if np.isfinite(area) else np.nan


def check_masks(document: Document, wanted: bool) -> None:
    """Keep outlines that are polygons or run lengths, and take the others away.

    Args:
        document: after `check_boxes`; ``annotations`` are mended in place.
        wanted: whether masks are trained or evaluated. Then an object without one is left out of
            both; else it stays, by its box.
    """
    bad, none = [], []
    for position, outline in enumerate(document.column("annotations", "segmentation")):
        if type(outline) is list and outline and all(map(_is_polygon, outline)):
            if not all(map(_is_drawable if wanted else _are_numbers, outline)):
                bad.append(position)
                del document.annotations[position]["segmentation"]
            continue
        if not outline:
            none.append(position)
            continue
        record = document.annotations[position]
        index = int(document.image_index[position])
        mended = _mend_outline(outline, document.images[index] if index >= 0 else {})
        good = _is_drawable if wanted else _are_numbers
        if mended is None or (isinstance(mended, list) and not all(map(good, mended))):
            bad.append(position)
            del record["segmentation"]
        else:
            document.changed |= wanted and mended != outline
            record["segmentation"] = mended
    if not wanted:
        return
    without = sorted(i for i in bad + none if document.kept[i])
    cure = "left out of training and evaluation, which want masks"
    if without and len(without) == len(document.annotations):
        what = "masks are wanted, and no annotation has one"
        cure = "turn mask_on off, and leave out the detector's mask head"
        document.tell("error", "no-masks", what, cure)
        return
    document.report(
        *("warning", "mask-form", "annotations"),
        without,
        "segmentation is missing, or neither polygons of three points nor run lengths",
        cure,
    )
    document.kept[without] = False
    document.changed |= bool(without)


def _is_polygon(points: Any) -> bool:
    return type(points) is list and len(points) >= 6 and len(points) % 2 == 0


def _are_numbers(points: list[Any]) -> bool:
    return set(map(type, points)) <= _NUMBERS


def _is_drawable(points: list[Any]) -> bool:
    """Whether a polygon has numbers, and no outline of miles, which pycocotools draws in full."""
    if not _are_numbers(points):
        return False
    most = sum(map(abs, points))  # no outline is longer than twice that
    if most < _LONGEST_OUTLINE / 2:
        return True
    if not most < 1e12:
        return False
    corners = np.array(points, dtype=np.float64).reshape(-1, 2)
    steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
    return bool(np.abs(corners).max() < _LONGEST_OUTLINE and steps.sum() < _LONGEST_OUTLINE)


def drawable_outline(outline: Any, size: tuple[int, int]) -> list[Any] | dict[str, Any] | None:
    """Give what an outline means, or None where it is none that can be drawn.

    Args:
        outline: anything.
        size: height and width of its picture in pixels.

    Returns:
        Polygons, run lengths with ``size`` and ``counts``, or None.
    """
    mended = _mend_outline(outline, dict(zip(("height", "width"), size, strict=True)))
    return None if isinstance(mended, list) and not all(map(_is_drawable, mended)) else mended


def _mend_outline(outline: Any, image: Record) -> list[Any] | dict[str, Any] | None:
    """What an outline means, or None: good polygons, a flat polygon, run lengths in a list."""
    if isinstance(outline, list):
        if all(type(value) in (int, float) for value in outline):
            return [outline] if _is_polygon(outline) else None
        if len(outline) == 1 and isinstance(outline[0], dict):
            return _mend_outline(outline[0], image)
        return [points for points in outline if _is_polygon(points)] or None
    if not (isinstance(outline, dict) and _is_run_lengths(outline, image)):
        return None
    return {"size": [image["height"], image["width"]], "counts": outline["counts"]}


def _is_run_lengths(outline: Record, image: Record) -> bool:
    size, counts = outline.get("size"), outline.get("counts")
    if size != [image.get("height"), image.get("width")] or size[0] * size[1] > max_pixels():
        return False
    if isinstance(counts, list):
        natural = all(type(count) is int and count >= 0 for count in counts)
        return natural and sum(counts) == size[0] * size[1]
    return isinstance(counts, str) and _total(counts) == size[0] * size[1]


def _total(counts: str) -> int:
    """Sum up run lengths in pycocotools' compressed form, or -1 where they are none.

    Each number is written in characters of five bits, the last of which ends it and bears the
    sign; from the fourth one on it is the difference to the number two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > _MOST_BITS:
            return -1
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return -1 if shift or min(runs, default=-1) < 0 else sum(runs)


def compressed(outline: list[Any] | dict[str, Any]) -> list[Any] | dict[str, Any]:
    """Return run lengths in pycocotools' compressed form, and polygons as they are."""
    if isinstance(outline, dict) and isinstance(outline["counts"], list):
        return mask_util.frPyObjects(outline, *outline["size"])
    return outline
