import pytest
import torch
from timm.models._manipulate import adapt_input_conv as timm_adapts
from torch import nn

from detrex.checkpoint.matching.input_conv import adapt_input_conv, input_convs, is_for_image


@pytest.mark.parametrize("in_channels", range(1, 13))
def test_adapt_input_conv__is_timms(in_channels):
    weight = torch.randn(5, 3, 7, 3)
    expected = timm_adapts(in_channels, weight)
    torch.testing.assert_close(adapt_input_conv(weight, in_channels), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("in_channels", [2, 3, 7])
def test_adapt_input_conv__from_one_channel(in_channels):
    weight = torch.randn(5, 1, 3, 3)
    got = adapt_input_conv(weight, in_channels)
    torch.testing.assert_close(got.sum(1), weight[:, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[:, 0], got[:, -1], rtol=0, atol=0)


def test_adapt_input_conv__keeps_the_dtype():
    assert adapt_input_conv(torch.randn(5, 3, 3, 3).half(), 1).dtype == torch.float16
    weight = torch.randn(5, 3, 3, 3)
    assert adapt_input_conv(weight, 3) is weight


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
    assert adapt_input_conv(torch.ones(5, 4, 3, 3), 1).unique().tolist() == [4.0]


@pytest.mark.parametrize("in_channels", [13, 200])
def test_adapt_input_conv__of_many_bands(in_channels):
    weight = torch.randn(5, 3, 3, 3)
    expected = timm_adapts(in_channels, weight)
    torch.testing.assert_close(adapt_input_conv(weight, in_channels), expected, rtol=0, atol=1e-7)


def test_input_convs__of_the_image_alone():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 13, 1), nn.Conv2d(13, 13, 1))
    assert input_convs(network, 3) == ["1.weight"]
    assert input_convs(network, 13) == ["2.weight"]
    assert input_convs(network, 7) == ["1.weight"]
    assert input_convs(nn.Linear(3, 5), 3) == []
