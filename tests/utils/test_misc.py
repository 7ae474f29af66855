"""Small tensor functions."""

import pytest
import torch

from detrex.utils import interpolate, inverse_sigmoid
from detrex.utils.misc import at_least_float32


def test_inverse_sigmoid__undoes_the_sigmoid():
    x = torch.linspace(-6, 6, 13, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x.sigmoid()), x, rtol=1e-9, atol=1e-9)


def test_inverse_sigmoid__clamps_at_1e_3():
    x = torch.tensor([-1.0, 0.0, 1e-4, 1 - 1e-4, 1.0, 2.0])
    limit = torch.log(torch.tensor(1e3))
    expected = torch.stack([-limit, -limit, -limit, limit, limit, limit])
    torch.testing.assert_close(inverse_sigmoid(x), expected, rtol=1e-4, atol=2e-4)


def test_inverse_sigmoid__eps_is_a_keyword():
    expected = torch.log(torch.tensor(1e5))
    torch.testing.assert_close(inverse_sigmoid(torch.tensor(1.0), eps=1e-5), expected)


@pytest.mark.parametrize(
    "keywords",
    [
        {"size": (7, 5)},
        {"scale_factor": 2.0, "mode": "bilinear", "align_corners": False},
    ],
)
def test_interpolate__equals_torch(keywords):
    x = torch.randn(2, 3, 5, 11)
    torch.testing.assert_close(
        interpolate(x, **keywords), torch.nn.functional.interpolate(x, **keywords)
    )


def test_at_least_float32__lifts_half_precision_only():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert at_least_float32(torch.zeros(2, dtype=dtype)).dtype == torch.float32
    assert at_least_float32(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64
