import pytest
import torch
from timm.models._manipulate import adapt_input_conv
from torch import nn

from detrex.checkpoint.input_kernels import adapt_kernel, input_kernels, is_for_image


@pytest.mark.parametrize("in_channels", range(1, 13))
def test_adapt_kernel__is_timms(in_channels):
    weight = torch.randn(5, 3, 7, 3)
    expected = adapt_input_conv(in_channels, weight)
    torch.testing.assert_close(adapt_kernel(weight, in_channels), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("in_channels", [2, 3, 7])
def test_adapt_kernel__from_one_channel(in_channels):
    weight = torch.randn(5, 1, 3, 3)
    got = adapt_kernel(weight, in_channels)
    torch.testing.assert_close(got.sum(1), weight[:, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[:, 0], got[:, -1], rtol=0, atol=0)


def test_adapt_kernel__keeps_the_dtype():
    assert adapt_kernel(torch.randn(5, 3, 3, 3).half(), 1).dtype == torch.float16
    weight = torch.randn(5, 3, 3, 3)
    assert adapt_kernel(weight, 3) is weight


@pytest.mark.parametrize(
    ("old", "new", "in_channels", "expected"),
    [
        ((5, 3, 7, 7), (5, 4, 7, 7), 4, True),
        ((5, 1, 7, 7), (5, 4, 7, 7), 4, True),
        ((5, 3, 7, 7), (5, 1, 7, 7), 1, True),
        ((5, 3, 7, 7), (5, 4, 7, 7), 3, False),
        ((5, 3, 7, 7), (5, 3, 7, 7), 3, False),
        ((5, 3, 7, 7), (6, 4, 7, 7), 4, False),
        ((5, 3, 7, 7), (5, 4, 3, 3), 4, False),
        ((5, 8, 7, 7), (5, 4, 7, 7), 4, False),
        ((5, 3), (5, 4), 4, False),
    ],
)
def test_is_for_image__number_of_channels_alone(old, new, in_channels, expected):
    assert is_for_image(torch.zeros(old), torch.zeros(new), in_channels) is expected


def test_is_for_image__any_number_to_one():
    old, new = torch.zeros(5, 4, 7, 7), torch.zeros(5, 1, 7, 7)
    assert is_for_image(old, new, 1)
    assert adapt_kernel(torch.ones(5, 4, 3, 3), 1).unique().tolist() == [4.0]


@pytest.mark.parametrize("in_channels", [13, 200])
def test_adapt_kernel__of_many_bands(in_channels):
    weight = torch.randn(5, 3, 3, 3)
    expected = adapt_input_conv(in_channels, weight)
    torch.testing.assert_close(adapt_kernel(weight, in_channels), expected, rtol=0, atol=1e-7)


def test_input_kernels__of_the_image_alone():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 13, 1), nn.Conv2d(13, 13, 1))
    assert input_kernels(network, 3) == ["1.weight"]
    assert input_kernels(network, 13) == ["2.weight"]
    assert input_kernels(network, 7) == ["1.weight"]
    assert input_kernels(nn.Linear(3, 5), 3) == []
