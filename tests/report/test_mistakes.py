import dataclasses
import re

import numpy as np
import pytest

from detrex.report import mistakes
from detrex.report.collect import collect
from tests.reference.report_runs import made_up_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return collect(made_up_run(tmp_path_factory.mktemp("mistakes"), 6), 2)


def _matrix(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text)[1:]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return np.array([[0 if c == "-" else int(c.replace(",", "")) for c in row] for row in cells])


def _with_classes(run, count):
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 9, (count + 1, count + 1))
    matrix[-1, -1] = 0
    names = tuple(f"<c{i}>" for i in range(count))
    found = dataclasses.replace(run.confusion, matrix=matrix)
    return dataclasses.replace(
        run, confusion=found, data=dataclasses.replace(run.data, names=names)
    )


def test_confusion__shows_the_matrix_and_its_rule(run):
    said, matrix, pairs = mistakes.confusion(run)
    np.testing.assert_array_equal(_matrix(matrix), run.confusion.matrix)
    assert f"score {run.confusion.threshold:g} or more" in said
    shown = [int(n) for n in re.findall(r'data-value="(\d+)"', pairs)]
    mixed = run.confusion.matrix[:-1, :-1]
    assert sum(shown) == mixed.sum() - mixed.diagonal().sum()
    assert shown == sorted(shown, reverse=True)


def test_confusion__of_many_classes_keeps_all_counts(run):
    many = _with_classes(run, 90)
    said, matrix, pairs = mistakes.confusion(many)
    shown = _matrix(matrix)
    assert shown.shape == (31, 31)
    assert shown.sum() == many.confusion.matrix.sum()
    assert "The 61 classes with the fewest mistakes" in said
    assert pairs.count("<tr>") == 21
    assert "&lt;c" in matrix
    assert "<c1" not in matrix


def test_confusion__without_mistakes_between_classes_has_no_list(run):
    whole = dataclasses.replace(run.confusion, matrix=np.diag([3, 2, 1, 0]))
    assert len(mistakes.confusion(dataclasses.replace(run, confusion=whole))) == 2


def test_pictures__say_what_is_in_them(run):
    said, _, shown = mistakes.pictures(run)
    assert "lowest F1" in said
    assert shown.count("<img") == 4
    for one in run.drawn:
        assert f'alt="{one.truth[1]}"' in shown
        assert one.summary in shown


def test_sections__without_detections_are_empty(run):
    nothing = dataclasses.replace(run, confusion=None, drawn=[])
    assert mistakes.confusion(nothing) == mistakes.pictures(nothing) == []
