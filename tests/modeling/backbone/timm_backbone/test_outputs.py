"""Indices of timm's features, as a user gives them."""

import pytest

from detrex.errors import BackboneError
from detrex.modeling.backbone.timm_backbone.outputs import resolve_indices


def test_resolve_indices__counts_from_the_end_and_keeps_the_order():
    assert resolve_indices([3, -4, 1], (2, 4, 8, 16), "net") == [3, 0, 1]


@pytest.mark.parametrize("indices", [(4,), (-5,), (), (0, 9)])
def test_resolve_indices__names_what_there_is(indices):
    match = r"net has the feature indices 0 \(stride 2\), 1 \(stride 4\), .* got out_indices="
    with pytest.raises(BackboneError, match=match):
        resolve_indices(indices, (2, 4, 8, 16), "net")


@pytest.mark.parametrize("indices", [(1, 1), (1, -3)])
def test_resolve_indices__refuses_duplicates(indices):
    with pytest.raises(BackboneError, match="more than once"):
        resolve_indices(indices, (2, 4, 8, 16), "net")


@pytest.mark.parametrize("indices", [3, 1.5, None, "012", (1.0,), (True,)])
def test_resolve_indices__wants_integers(indices):
    with pytest.raises(TypeError, match="must be a sequence of integers"):
        resolve_indices(indices, (2, 4, 8, 16), "net")
