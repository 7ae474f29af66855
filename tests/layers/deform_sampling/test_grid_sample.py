"""Sampling by `grid_sample`, against a loop over points."""

import pytest
import torch

from detrex.layers.deform_sampling import grid_sample
from tests.reference.loops import deformable_attention

SIZES = [(5, 7), (1, 1), (3, 2)]


@pytest.mark.parametrize("requires_grad", [False, True])
def test_attend__equals_loop(requires_grad):
    value = torch.randn(2, 42, 2, 3, dtype=torch.float64, requires_grad=requires_grad)
    locations = torch.rand(2, 5, 2, 3, 2, 2, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(2, 5, 2, 3, 2, dtype=torch.float64)
    assert grid_sample.why_not("cpu", value.dtype) == ""
    torch.testing.assert_close(
        grid_sample.attend(value, locations, weights, SIZES),
        deformable_attention(value, SIZES, locations, weights),
        rtol=1e-10,
        atol=1e-10,
    )
