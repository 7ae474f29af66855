"""Layer normalisation of tokens and maps."""

import torch
from torch import nn

from detrex.layers import LayerNorm


def _pair(channel_last):
    ours, reference = LayerNorm(5, channel_last=channel_last), nn.LayerNorm(5, eps=1e-6)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    reference.load_state_dict(ours.state_dict())
    return ours, reference


def test_layer_norm__channel_last_equals_torch():
    ours, reference = _pair(channel_last=True)
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(ours(x), reference(x))


def test_layer_norm__channel_first_equals_torch():
    ours, reference = _pair(channel_last=False)
    x = torch.randn(2, 5, 3, 7)
    expected = reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours(x), expected)
