"""Shapes in signatures are true: what goes in and comes out is held against them."""

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from detrex.layers import generalized_box_iou
from tests.reference.shape_checks import Call, checked, checking, hints_of, mutants
from tests.reference.shaped_calls import CASES, boxes


def test_signatures__are_true_and_tell_something():
    with checking() as calls:
        for case in CASES:
            case()
    untold = [f"{name} is not run" for name in calls if not calls[name]]
    for name, seen in calls.items():
        wrong = mutants(seen[0].hints) if seen else []
        untold += [
            f"{name}: {what}"
            for what, hints in wrong
            if not any(call.misfits(hints) for call in seen)
        ]
    assert not untold, "\n".join(untold)


def swap(x: Float[Tensor, "n 4"], y: Int[Tensor, " n"] | None = None) -> Float[Tensor, "4 n"]:
    return x.mT if y is None else x


def test_checked__finds_a_wrong_shape():
    calls: list[Call] = []
    function = checked(swap, hints_of(swap), calls)
    function(torch.rand(3, 4))
    assert [call.values["return"].shape for call in calls] == [(4, 3)]
    with pytest.raises(AssertionError, match=r"swap: return is no .*Float\[Tensor, '4 n'\].*3, 4"):
        function(torch.rand(3, 4), torch.arange(3))
    with pytest.raises(AssertionError, match=r"x is no .*'n 4'.*int64"):
        function(torch.ones(3, 4, dtype=torch.int64))
    with pytest.raises(AssertionError, match=r"y is no .*'n'"):
        function(torch.rand(4, 4), torch.arange(3))


@pytest.mark.parametrize(("count", "told"), [(5, True), (3, False)])
def test_mutants__are_told_by_odd_sizes_alone(count, told):
    calls: list[Call] = []
    hints = hints_of(generalized_box_iou)
    checked(generalized_box_iou, hints, calls)(boxes(count), boxes(3))
    alike = dict(mutants(hints))["n and m are always alike"]
    assert bool(calls[0].misfits(alike)) is told
