import numpy as np
import pytest
import supervision

from detrex.report.confusion import (
    Confusion,
    best_threshold,
    confusion,
    iou_matrix,
    is_ignored,
    pairs_of,
)
from detrex.report.detections import Columns


def columns(rng, pictures, most, classes, crowds=False):
    """Objects in few places, so that many of them compete."""
    counts = rng.integers(0, most + 1, pictures)
    n = int(counts.sum())
    corner = rng.integers(0, 2, (n, 2)) * 12 + rng.uniform(-1.5, 1.5, (n, 2))
    boxes = np.hstack([corner, corner + rng.uniform(8, 13, (n, 2))])
    scores = rng.integers(0, 2, n) if crowds else rng.uniform(0, 1, n)
    picture = np.repeat(np.arange(pictures), counts)
    order = np.lexsort((-scores, picture))
    return Columns(picture, rng.integers(0, classes, n), boxes, scores.astype(float)).taken(order)


def objects(columns):
    return Columns(columns.picture, columns.kind, columns.boxes, np.ones(len(columns.kind)))


def overlap(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def naive(truth, found, pictures, classes, threshold):
    """The rule of the module once more, object by object."""
    matrix = np.zeros((classes + 1, classes + 1), dtype=int)
    figures = np.zeros((3, pictures), dtype=int)
    for picture in range(pictures):
        everything = [i for i in range(len(truth.kind)) if truth.picture[i] == picture]
        left = [i for i in everything if truth.scores[i]]
        here = [
            j
            for j in range(len(found.kind))
            if found.picture[j] == picture and found.scores[j] >= threshold
        ]
        while True:
            best = None
            for i in left:
                for j in here:
                    a, b = truth.boxes[i], found.boxes[j]
                    iou = overlap(a, b) / (area(a) + area(b) - overlap(a, b))
                    rank = (truth.kind[i] == found.kind[j], iou)
                    if iou >= 0.5 and (best is None or rank > best[0]):
                        best = rank, i, j
            if best is None:
                break
            (same, _), i, j = best
            left.remove(i)
            here.remove(j)
            matrix[truth.kind[i], found.kind[j]] += 1
            figures[:, picture] += (1, 0, 0) if same else (0, 1, 1)
        for i in left:
            matrix[truth.kind[i], classes] += 1
            figures[1, picture] += 1
        for j in here:
            crowded = any(
                not truth.scores[i]
                and truth.kind[i] == found.kind[j]
                and overlap(truth.boxes[i], found.boxes[j]) >= 0.5 * area(found.boxes[j])
                for i in everything
            )
            if not crowded:
                matrix[classes, found.kind[j]] += 1
                figures[2, picture] += 1
    return matrix, figures


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.0, 0.35])
def test_confusion__equals_the_naive_one(seed, threshold):
    rng = np.random.default_rng(seed)
    truth, found = columns(rng, 9, 5, 3, crowds=True), columns(rng, 9, 7, 3)
    got = confusion(truth, found, 9, "abc", threshold)
    matrix, figures = naive(truth, found, 9, 3, threshold)
    np.testing.assert_array_equal(got.matrix, matrix)
    np.testing.assert_array_equal([got.right, got.missed, got.wrong], figures)
    assert got.threshold == threshold


@pytest.mark.parametrize("seed", range(4))
def test_confusion__equals_supervisions_without_crowds(seed):
    rng = np.random.default_rng(100 + seed)
    truth, found = objects(columns(rng, 12, 6, 4)), columns(rng, 12, 6, 4)
    theirs = supervision.ConfusionMatrix.from_tensors(
        predictions=[
            np.column_stack([p.boxes, p.kind, p.scores]) for p in map(found.of, range(12))
        ],
        targets=[np.column_stack([t.boxes, t.kind]) for t in map(truth.of, range(12))],
        classes=list("abcd"),
        conf_threshold=0.3,
        iou_threshold=0.5,
    )
    got = confusion(truth, found, 12, "abcd", 0.3)
    np.testing.assert_array_equal(got.matrix, theirs.matrix)
    assert got.matrix[:-1, :-1].sum() > 5


def test_iou_matrix__of_boxes_without_an_area_is_0():
    boxes = np.array([[0, 0, 0, 0], [0, 0, 2, 2], [4, 4, 3, 3]], dtype=float)
    np.testing.assert_array_equal(iou_matrix(boxes, boxes), np.diag([0, 1, 0]))
    assert iou_matrix(boxes[:0], boxes).shape == (0, 3)


def test_pairs_of__one_class_comes_before_a_greater_iou():
    truth = Columns(np.zeros(1, int), np.array([1]), np.array([[0.0, 0, 10, 10]]), np.ones(1))
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 8]])
    found = Columns(np.zeros(2, int), np.array([0, 1]), boxes, np.array([0.9, 0.2]))
    assert pairs_of(truth, found) == [(0, 1)]


def test_is_ignored__in_a_crowd_of_the_same_class_alone():
    truth = Columns(np.zeros(1, int), np.array([1]), np.array([[0.0, 0, 9, 9]]), np.zeros(1))
    boxes = np.array([[1.0, 1, 3, 3], [1, 1, 3, 3], [8, 8, 12, 12]])
    found = Columns(np.zeros(3, int), np.array([1, 0, 1]), boxes, np.ones(3))
    assert is_ignored(truth, found).tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(4))
def test_best_threshold__none_of_the_others_has_a_higher_f1(seed):
    """Boxes of one class far apart, so that every rule of pairing gives the same."""
    rng = np.random.default_rng(seed)
    n = 60
    corner = np.stack([np.arange(n) * 20.0, np.zeros(n)], axis=1)
    truth = Columns(np.sort(rng.integers(0, 5, n)), np.zeros(n, int), np.zeros((n, 4)), np.ones(n))
    truth.boxes[:] = np.hstack([corner, corner + 10])
    kept = rng.random(n) < 0.7
    hits = rng.uniform(0.3, 1, n)
    boxes = np.vstack([truth.boxes[kept], truth.boxes[:30] + 500_000])
    picture = np.concatenate([truth.picture[kept], truth.picture[:30]])
    scores = np.concatenate([hits[kept], rng.uniform(0, 0.6, 30)])
    order = np.lexsort((-scores, picture))
    found = Columns(picture, np.zeros(len(picture), int), boxes, scores).taken(order)
    chosen = best_threshold(truth, found, 5)

    def f1(threshold):
        got = confusion(truth, found, 5, "a", threshold)
        right, missed, wrong = got.right.sum(), got.missed.sum(), got.wrong.sum()
        return 2 * right / (2 * right + missed + wrong)

    others = {t: f1(t) for t in np.arange(5, 100, 5) / 100}
    assert others[chosen] == max(others.values())
    assert chosen == max(t for t, value in others.items() if value == others[chosen])


def test_best_threshold__where_nothing_is_found_is_in_the_middle():
    rng = np.random.default_rng(0)
    truth, found = objects(columns(rng, 3, 4, 2)), columns(rng, 3, 4, 2)
    assert best_threshold(truth, found.taken(slice(0, 0)), 3) == 0.5


def test_worst__lowest_f1_then_most_mistakes_and_none_without():
    right, missed, wrong = np.array([[5, 0, 0, 1, 0], [0, 1, 2, 1, 0], [0, 1, 3, 0, 0]])
    made = Confusion(0.5, np.zeros((2, 2)), right, missed, wrong)
    np.testing.assert_allclose(made.f1(), [1, 0, 0, 2 / 3, np.nan])
    assert made.worst(9) == [2, 1, 3]
    assert made.worst(1) == [2]
