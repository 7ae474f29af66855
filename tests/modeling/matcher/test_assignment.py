"""The assignment itself, against trying all ways."""

import pytest
import torch

from detrex.errors import NonFiniteLossError
from detrex.modeling.matcher.assignment import assign, check_labels
from tests.reference.loops import cheapest_assignment


def test_assign__is_the_cheapest():
    cost = torch.randn(3, 5, 4)
    counts = [4, 0, 2]
    matches = assign(cost, counts, {})
    for matrix, count, (rows, columns) in zip(cost, counts, matches, strict=True):
        assert rows.dtype == columns.dtype == torch.int64
        assert sorted(columns.tolist()) == list(range(count))
        found = matrix[rows, columns].sum().item()
        assert found == pytest.approx(cheapest_assignment(matrix[:, :count]), abs=1e-5)


def test_assign__more_objects_than_predictions():
    ((rows, columns),) = assign(torch.randn(1, 2, 5), [5], {})
    assert rows.tolist() == [0, 1]
    assert len(set(columns.tolist())) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_assign__names_the_tensor_that_is_not_finite(bad):
    cost = torch.full((1, 3, 2), float("nan"))
    inputs = {"pred_logits": torch.zeros(3), "target boxes": [torch.zeros(4), torch.tensor([bad])]}
    with pytest.raises(NonFiniteLossError, match="got target boxes with 1 of 1 numbers NaN or inf"):
        assign(cost, [2], inputs)


def test_assign__overflow_of_finite_inputs_is_dear():
    cost = torch.tensor([[[float("nan"), 0.0], [1.0, float("inf")], [2.0, 2.0]]])
    ((rows, columns),) = assign(cost, [2], {"boxes": torch.zeros(3)})
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_check_labels__range():
    check_labels(torch.tensor([0, 6]), 7)
    check_labels(torch.zeros(0, dtype=torch.int64), 7)
    with pytest.raises(ValueError, match=r"run from 0 to 7, .* has 7 classes \(0 to 6\)"):
        check_labels(torch.tensor([7, 0]), 7)
    with pytest.raises(ValueError, match="run from -1 to 3"):
        check_labels(torch.tensor([3, -1]), 7)
