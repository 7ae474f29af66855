"""The assignment itself, against trying all ways."""

import pytest
import torch

from detrex.errors import NonFiniteLossError
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.matcher.assignment import (
    Problem,
    assign,
    check_labels,
    class_indices,
    match_together,
    solve,
)
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


def test_solve__brings_all_costs_and_labels_over_in_one_transfer(monkeypatch):
    costs = [torch.randn(2, 5, 3), torch.randn(1, 4, 1, dtype=torch.float64)]
    labels = [[torch.tensor([0, 1, 2]), torch.tensor([6])], [torch.tensor([], dtype=torch.int64)]]
    problems = [Problem(*parts, 7, {}) for parts in zip(costs, labels, strict=True)]
    expected = [assign(costs[0], [3, 1], {}), assign(costs[1], [0], {})]
    moved, plain = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(tensor) or plain(tensor))
    matches = solve(problems)
    assert [tensor.numel() for tensor in moved] == [sum(cost.numel() for cost in costs) + 4]
    for solved, wanted in zip(matches, expected, strict=True):
        assert [[i.tolist() for i in pair] for pair in solved] == [
            [i.tolist() for i in pair] for pair in wanted
        ]


def test_solve__checks_the_labels_first():
    cost = torch.full((1, 3, 2), float("nan"))
    problem = Problem(cost, [torch.tensor([0, 9])], 7, {"boxes": cost})
    with pytest.raises(ValueError, match="run from 0 to 9"):
        solve([problem])


def test_class_indices__are_classes():
    assert class_indices(torch.tensor([-1, 0, 6, 7, 99]), 7).tolist() == [0, 0, 6, 6, 6]


class _Overridden(HungarianMatcher):
    def forward(self, outputs, targets):
        return ["its own", outputs]


class _WithLayers(_Overridden):
    def match_layers(self, layers):
        return [["together", outputs] for outputs, _ in layers]


def _with_forward_of_its_own():
    matcher = HungarianMatcher()
    matcher.forward = lambda outputs, targets: ["of the object", outputs]
    return matcher


@pytest.mark.parametrize(
    ("matcher", "said"),
    [
        (_Overridden(), "its own"),
        (_WithLayers(), "together"),
        (_with_forward_of_its_own(), "of the object"),
        (lambda outputs, targets: ["a function", outputs], "a function"),
    ],
)
def test_match_together__asks_the_method_that_the_matcher_defines_last(matcher, said):
    assert match_together(matcher, [(1, "a"), (2, "b")]) == [[said, 1], [said, 2]]
