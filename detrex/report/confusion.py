"""Which detection is which object, what is taken for what, and where a detector fails most.

A detection and an object are a pair where their boxes have an IoU of 0.5 or more. Pairs of one
class come first, and then those with the greatest IoU; each object and each detection is in one
pair. A detection without an object that lies half or more in a crowd region of its class counts for
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from detrex.report.detections import Columns

IOU = 0.5
_THRESHOLDS = np.arange(5, 100, 5) / 100


@dataclass(frozen=True)
class Confusion:
    """Counts over a data set, at one score threshold.

    Attributes:
        threshold: detections that score less are left out.
        matrix: int64 ``(K + 1, K + 1)``: how many objects of the row's class were found as the
            column's. The last row is of detections where there is no object, the last column of
            objects that were not found.
        right: how many objects of each picture were found as what they are, ``(pictures,)``.
        missed: how many were not, or as something else.
        wrong: how many detections are of no object, or of one of another class.
    """

    threshold: float
    matrix: np.ndarray
    right: np.ndarray
    missed: np.ndarray
    wrong: np.ndarray

    def f1(self) -> np.ndarray:
        """Of each picture ``2 right / (2 right + missed + wrong)``; NaN where there is nothing."""
        total = 2 * self.right + self.missed + self.wrong
        return np.divide(2 * self.right, total, out=np.full(len(total), np.nan), where=total > 0)

    def worst(self, count: int) -> list[int]:
        """Give the pictures with the lowest F1, and among equals those with most mistakes.

        Args:
            count: how many at most.

        Returns:
            The places of pictures with a mistake, the worst first.
        """
        mistakes, f1 = self.missed + self.wrong, self.f1()
        order = np.lexsort((-mistakes, f1))  # NaN comes last
        return [int(place) for place in order if mistakes[place]][:count]


def iou_matrix(
    boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
    """Compare boxes ``(n, 4)`` with ``(m, 4)``, x0, y0, x1, y1: their IoU ``(n, m)``."""
    shared = _shared(boxes, others)
    union = _areas(boxes)[:, None] + _areas(others) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def pairs_of(truth: Columns, found: Columns) -> list[tuple[int, int]]:
    """Say which detection is of which object of a picture.

    Args:
        truth: the picture's objects, without crowd regions.
        found: its detections.

    Returns:
        Places in ``truth`` and in ``found``; see the module for the rule.
    """
    ious = iou_matrix(truth.boxes, found.boxes)
    rows, columns = np.nonzero(ious >= IOU)
    other = truth.kind[rows] != found.kind[columns]
    order = np.lexsort((-ious[rows, columns], other))
    return _greedy(rows[order].tolist(), columns[order].tolist())


def is_ignored(truth: Columns, found: Columns) -> np.ndarray:
    """Tell which detections of a picture lie in a crowd region of their class, bool ``(m,)``."""
    crowd = truth.taken(truth.scores == 0)
    own = np.maximum(_areas(found.boxes), 1e-9)
    inside = _shared(crowd.boxes, found.boxes) / own >= IOU
    return (inside & (crowd.kind[:, None] == found.kind)).any(axis=0)


def best_threshold(truth: Columns, found: Columns, pictures: int) -> float:
    """Choose the score threshold at which F1 over the whole data set is highest.

    Args:
        truth: of all pictures.
        found: of all pictures, by falling score in each.
        pictures: their number.

    Returns:
        A multiple of 0.05, the highest of equals; 0.5 where nothing is found at any.
    """
    counted = np.zeros(len(found.scores), dtype=bool)
    right = np.zeros(len(found.scores), dtype=bool)
    for place in range(pictures):
        first, last = np.searchsorted(found.picture, [place, place + 1])
        here, all_here = found.taken(slice(first, last)), truth.of(place)
        objects = all_here.taken(all_here.scores > 0)
        same = objects.kind[:, None] == here.kind
        ious = iou_matrix(objects.boxes, here.boxes)
        columns, rows = np.nonzero((same & (ious >= IOU)).T)
        order = np.lexsort((-ious[rows, columns], columns))  # by falling score, as COCO pairs
        pairs = _greedy(rows[order].tolist(), columns[order].tolist())
        right[first + np.array([column for _, column in pairs], dtype=np.int64)] = True
        counted[first:last] = ~is_ignored(all_here, here) | right[first:last]
    objects_in_all = int((truth.scores > 0).sum())
    above = found.scores >= _THRESHOLDS[:, None]
    hits = (above & right).sum(axis=1)
    f1 = 2 * hits / np.maximum((above & counted).sum(axis=1) + objects_in_all, 1)
    return float(_THRESHOLDS[len(f1) - 1 - np.argmax(f1[::-1])]) if hits.any() else 0.5


def confusion(
    truth: Columns, found: Columns, pictures: int, names: Sequence[str], threshold: float
) -> Confusion:
    """Count what is found as what.

    Args:
        truth: of all pictures.
        found: of all pictures.
        pictures: their number.
        names: of the classes.
        threshold: detections that score less are left out.
    """
    background = len(names)
    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    right, missed, wrong = np.zeros((3, pictures), dtype=np.int64)
    found = found.taken(found.scores >= threshold)
    for place in range(pictures):
        everything, here = truth.of(place), found.of(place)
        objects = everything.taken(everything.scores > 0)
        pairs = pairs_of(objects, here)
        rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        alone = ~is_ignored(everything, here)
        alone[columns] = False
        lost = np.ones(len(objects.kind), dtype=bool)
        lost[rows] = False
        np.add.at(matrix, (objects.kind[rows], here.kind[columns]), 1)
        np.add.at(matrix[:, background], objects.kind[lost], 1)
        np.add.at(matrix[background], here.kind[alone], 1)
        right[place] = (objects.kind[rows] == here.kind[columns]).sum()
        missed[place] = len(objects.kind) - right[place]
        wrong[place] = len(rows) - right[place] + alone.sum()
    return Confusion(threshold, matrix, right, missed, wrong)


def _greedy(rows: Sequence[int], columns: Sequence[int]) -> list[tuple[int, int]]:
    """Take pairs in their order, each row and each column once."""
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    pairs = []
    for row, column in zip(rows, columns, strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    return pairs


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def _shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas that boxes ``(n, 4)`` have in common with others ``(m, 4)``: ``(n, m)``."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.prod(np.maximum(high - low, 0), axis=2)
