"""The sections of the page on what a detector mistakes: confusion matrix and worst pictures."""

from collections.abc import Iterable, Sequence

import numpy as np

from detrex.report.collect import Run
from detrex.report.html import Content, Html, element
from detrex.report.pictures import FAILED, OTHER, RIGHT
from detrex.report.tables import scrolled, table

_MOST_CLASSES = 30
_MOST_MISTAKES = 20


def confusion(run: Run) -> list[Html]:
    """The confusion matrix, and the mistakes that are made most often."""
    if run.confusion is None or run.data is None:
        return []
    found, names = run.confusion, list(run.data.names)
    matrix, labels, left_out = _most_confused(found.matrix, names)
    said = (
        f"Detections that score {found.threshold:g} or more, at which F1 over all pictures is "
        "highest (of 0.05, 0.10, ... 0.95), against objects by boxes with an IoU of 0.5 or more: "
        "pairs of one class come first, then those with the greatest IoU. Rows are the truth, "
        "columns what was found; crowd regions do not count."
    )
    if left_out:
        said += f" The {left_out} classes with the fewest mistakes are one, named “others”."
    head = [element("th", label, scope="col") for label in ("truth", *labels[:-1], "missed")]
    body = [
        element("tr", element("th", label, scope="row"), _matrix_cells(matrix, place))
        for place, label in enumerate([*labels[:-1], "nothing there"])
    ]
    grid = element(
        "table",
        element("caption", "objects by what they were found as"),
        element("thead", element("tr", head)),
        element("tbody", body),
        class_="matrix",
    )
    return [element("p", said), scrolled("confusion matrix", grid), *_mistakes(found.matrix, names)]


def pictures(run: Run) -> list[Html]:
    """The worst pictures, truth beside predictions."""
    if not run.drawn or run.confusion is None:
        return []
    said = (
        "Those with the lowest F1 at the score threshold of the confusion matrix "
        f"({run.confusion.threshold:g}); among equals those with most mistakes, which are missed "
        "objects and detections of nothing or of another class."
    )
    colours = {
        "found as what it is": RIGHT,
        "missed, or of nothing": FAILED,
        "found as another class": OTHER,
    }
    legend = [
        element("li", element("span", class_="key box", style=f"color: rgb{rgb}"), text)
        for text, rgb in colours.items()
    ]
    shown = [
        element(
            "figure",
            element("figcaption", f"{one.name}: {one.summary}"),
            element("div", [_labelled(*half) for half in (one.truth, one.found)]),
            class_="pair",
        )
        for one in run.drawn
    ]
    return [
        element("p", said),
        element("ul", legend, class_="legend"),
        element("div", shown, class_="pairs"),
    ]


def _labelled(address: str, what: str) -> Html:
    return element("div", element("p", what, class_="soft"), element("img", src=address, alt=what))


def _most_confused(matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str], int]:
    """Put the classes with the fewest mistakes together where there are many."""
    count = len(names)
    if count <= _MOST_CLASSES:
        return matrix, [*names, ""], 0
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    kept = np.sort(np.argsort(-mistakes[:count], kind="stable")[: _MOST_CLASSES - 1])
    group = np.full(count + 1, len(kept))
    group[kept], group[count] = np.arange(len(kept)), len(kept) + 1
    small = np.zeros((len(kept) + 2, len(kept) + 2), dtype=matrix.dtype)
    np.add.at(small, (group[:, None], group), matrix)
    return small, [*(names[i] for i in kept), "others", ""], count - len(kept)


def _matrix_cells(matrix: np.ndarray, row: int) -> Iterable[Html]:
    total = max(int(matrix[row].sum()), 1)
    last = len(matrix) - 1
    for column, count in enumerate(matrix[row].tolist()):
        if row == column == last:
            yield element("td", "-")
            continue
        share = f"--share: {0.45 * count / total:.2f}" if count else None
        kind = "hit" if row == column else "miss"
        yield element("td", f"{count:,}", class_=kind if count else None, style=share)


def _mistakes(matrix: np.ndarray, names: Sequence[str]) -> list[Html]:
    mixed = matrix[:-1, :-1] - np.diag(matrix.diagonal()[:-1])
    order = np.argsort(-mixed, axis=None, kind="stable")[:_MOST_MISTAKES]
    pairs: list[tuple[Content, ...]] = []
    for row, column in zip(*np.unravel_index(order, mixed.shape), strict=True):
        if mixed[row, column]:
            share = 100 * mixed[row, column] / matrix[row].sum()
            pairs.append((names[row], names[column], int(mixed[row, column]), float(share)))
    if not pairs:
        return []
    header = ["truth", "found as", "times", "percent of the class"]
    return [table("taken for each other most often", header, pairs, sortable=True)]
