"""Keypoints: x, y and a visibility of 0, 1 or 2 for each point that the categories name."""

from collections import Counter
from typing import Any

from detrex.data.coco.document import Document

_BOUNDLESS = 1e9  # pixels


def keypoint_names(document: Document) -> list[str]:
    """Return what a document's categories call the keypoints, in order; empty where they do not."""
    lists = [c["keypoints"] for c in document.categories if _is_list_of_names(c.get("keypoints"))]
    return list(lists[0]) if lists else []


def check_keypoints(document: Document, wanted: bool) -> None:
    """Keep keypoints that can be right, and take the others away.

    Args:
        document: ``annotations`` are mended in place.
        wanted: whether keypoints are trained or evaluated. Then an object without any gets points
            that are not labelled, which neither training nor evaluation counts.
    """
    if not wanted and not any("keypoints" in annotation for annotation in document.annotations):
        return
    length = 3 * len(keypoint_names(document)) or _usual_length(document)
    raw = document.column("annotations", "keypoints")
    bad = [i for i, points in enumerate(raw) if points and not _are_keypoints(points, length)]
    none = [i for i, points in enumerate(raw) if not points]
    for position in bad + none:
        document.annotations[position].pop("keypoints", None)
    if wanted and document.annotations:
        _check_names(document)
        _fill_in(document, bad, none, length)


def _fill_in(document: Document, bad: list[int], none: list[int], length: int) -> None:
    """Complete what an evaluation of keypoints reads, and report what was wrong."""
    for position in bad + none:
        document.annotations[position].update(keypoints=[0] * length, num_keypoints=0)
    numbers = [_labelled(annotation["keypoints"]) for annotation in document.annotations]
    if not any(numbers):
        what = "keypoints are wanted, and no annotation has any"
        cure = "turn keypoint_on off, and leave out the detector's keypoint head"
        document.tell("error", "no-keypoints", what, cure)
        return
    said = document.column("annotations", "num_keypoints")
    counted = [i for i, number in enumerate(numbers) if said[i] != number]
    for position in counted:
        document.annotations[position]["num_keypoints"] = numbers[position]
    document.report(
        *("warning", "keypoints-form", "annotations"),
        bad,
        f"keypoints are not {length} finite numbers, x, y and a visibility of 0, 1 or 2 for each "
        f"of {length // 3} points",
        "taken for points that are not labelled, in training and evaluation",
    )
    document.report(
        *("note", "keypoints-missing", "annotations"),
        none,
        "keypoints are missing",
        "they were filled in as not labelled",
    )
    document.report(
        *("note", "num-keypoints", "annotations"),
        counted,
        "num_keypoints is not the number of points with a visibility above 0",
        "it was counted anew",
    )
    document.changed |= bool(bad or none or counted)


def _check_names(document: Document) -> None:
    """Refuse categories that do not agree on the keypoints: a detector has one list for all."""
    lists = [c["keypoints"] for c in document.categories if c.get("keypoints")]
    if not all(_is_list_of_names(names) for names in lists):
        what, cure = "a category's keypoints are no list of names", "write one name for each point"
    elif any(names != lists[0] for names in lists):
        what = "the categories name different keypoints"
        cure = "give all the same list, with points that are not labelled where one has fewer"
    else:
        return
    document.tell("error", "keypoint-names", what, cure)


def _is_list_of_names(names: Any) -> bool:
    return isinstance(names, list) and bool(names) and all(type(name) is str for name in names)


def _usual_length(document: Document) -> int:
    lists = [p for p in document.column("annotations", "keypoints") if p and isinstance(p, list)]
    lengths = Counter(len(points) for points in lists if len(points) % 3 == 0)
    return lengths.most_common(1)[0][0] if lengths else 3


def _are_keypoints(points: Any, length: int) -> bool:
    if not isinstance(points, list) or len(points) != length:
        return False
    numbers = set(map(type, points)) <= {int, float}
    numbers = numbers and all(-_BOUNDLESS < value < _BOUNDLESS for value in points)
    return numbers and set(points[2::3]) <= {0, 1, 2}


def _labelled(points: list[float]) -> int:
    return sum(visibility > 0 for visibility in points[2::3])
