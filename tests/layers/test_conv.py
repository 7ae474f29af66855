"""Convolution, norm and activation in one module."""

import torch
from torch import nn

from detrex.layers import ConvNorm, ConvNormAct


def test_conv_norm_act__runs_in_order():
    block = ConvNormAct(
        3, 4, 3, stride=2, padding=1, norm_layer=nn.GroupNorm(2, 4), activation=nn.ReLU()
    )
    x = torch.randn(2, 3, 7, 5)
    torch.testing.assert_close(block(x), block.norm(block.conv(x)).relu())
    assert sorted(block.state_dict()) == ["conv.bias", "conv.weight", "norm.bias", "norm.weight"]


def test_conv_norm_act__passes_keywords_to_conv():
    block = ConvNormAct(4, 8, 3, groups=2, dilation=2, bias=False, padding_mode="reflect")
    assert block.conv.padding_mode == "reflect"
    assert (block.conv.groups, block.conv.dilation, block.conv.bias) == (2, (2, 2), None)


def test_conv_norm__has_no_activation():
    assert ConvNorm(3, 4, norm_layer=nn.BatchNorm2d(4)).activation is None
