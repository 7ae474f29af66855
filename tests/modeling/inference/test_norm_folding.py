import copy

import pytest
import timm
import torch
import torchvision
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from timm.layers import BatchNormAct2d, norm_act
from torch import nn
from torch.testing import assert_close

from detrex.modeling.backbone.training.frozen_norm import FrozenBatchNormAct
from detrex.modeling.inference.norm_finder import find_foldable_norms_on_meta
from detrex.modeling.inference.norm_folding import (
    fold_norms,
    has_fixed_statistics,
    layers_after_norm,
    norm_scale_and_shift,
)
from tests.modeling.inference.norms import draw_statistics

NORMS = {
    "torch": nn.BatchNorm2d(6, eps=0.1),
    "torch, no affine": nn.BatchNorm2d(6, affine=False),
    "torch, synchronised": nn.SyncBatchNorm(6),
    "detectron2": FrozenBatchNorm2d(6, eps=0.1),
    "torchvision": torchvision.ops.FrozenBatchNorm2d(6, eps=0.1),
    "timm": BatchNormAct2d(6, eps=0.1),
    "timm, drop": BatchNormAct2d(6, drop_layer=nn.Dropout, act_layer=nn.SiLU),
    "timm, frozen": norm_act.FrozenBatchNormAct2d(6, act_layer=nn.GELU, inplace=False),
    "timm, frozen, plain": norm_act.FrozenBatchNorm2d(6),
    "own": FrozenBatchNormAct(6, act=nn.Hardswish()),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_norm_scale_and_shift__is_the_norm_before_its_layers(norm):
    norm = draw_statistics(copy.deepcopy(norm)).eval()
    assert has_fixed_statistics(norm)
    x = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(1))
    scale, shift = (value.float().view(-1, 1, 1) for value in norm_scale_and_shift(norm))
    assert_close(layers_after_norm(norm)(x * scale + shift), norm(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("norm", "fixed"),
    [
        (nn.BatchNorm2d(6).train(), False),
        (nn.BatchNorm2d(6, track_running_stats=False).eval(), False),
        (FrozenBatchNorm2d(6).train(), True),
        (nn.GroupNorm(2, 6).eval(), False),
    ],
)
def test_has_fixed_statistics__by_class_and_mode(norm, fixed):
    assert has_fixed_statistics(norm) == fixed


CONVS = {
    "1d": (nn.Conv1d(4, 6, 2), nn.BatchNorm1d(6), (7,)),
    "2d, grouped": (nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), (7, 5)),
    "2d, depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.BatchNorm2d(8), (7, 5)),
    "2d, transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2), nn.BatchNorm2d(6), (4, 5)),
    "2d, detectron2": (
        Conv2d(4, 6, 1, norm=FrozenBatchNorm2d(6), activation=torch.relu),
        None,
        (7, 5),
    ),
    "3d": (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), (4, 3, 5)),
}


@pytest.mark.parametrize(("conv", "norm", "size"), CONVS.values(), ids=CONVS)
def test_fold_norms__keeps_the_output(conv, norm, size):
    network = draw_statistics(nn.Sequential(conv, *([norm] if norm else []))).eval()
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1))
    folded = copy.deepcopy(network)
    fold_norms(folded, find_foldable_norms_on_meta(network, x))
    assert not any(has_fixed_statistics(module) for module in folded.modules())
    assert_close(folded(x), network(x), rtol=1e-5, atol=1e-6)


class TwoNames(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 1), BatchNormAct2d(6))
        self.alias = nn.ModuleList([self[1]])

    def forward(self, x):
        return self.alias[0](self[0](x))


def test_fold_norms__replaces_every_name_of_a_norm():
    network = draw_statistics(TwoNames()).eval()
    x = torch.randn(2, 3, 5, 7)
    expected = network(x)
    fold_norms(network, find_foldable_norms_on_meta(network, x))
    assert isinstance(network[1], nn.ReLU)
    assert network.alias[0] is network[1]
    assert_close(network(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18", 0),  # norm, then activation
        ("tf_efficientnet_b0", 0),  # the activation in the norm, depthwise, "same" padding
        ("resnetv2_18", 9),  # norms before the convolutions: those after sums stay
        ("densenet121", 62),  # norms of concatenated maps stay
        ("repvgg_a0", 17),  # norms of the identity branch stay
    ],
)
def test_fold_norms__of_a_network(name, left):
    network = timm.create_model(name, num_classes=0, global_pool="").double()
    draw_statistics(network).eval()
    x = torch.randn(2, 3, 65, 97, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    folded = copy.deepcopy(network)
    fold_norms(folded, find_foldable_norms_on_meta(network, x))
    assert sum(has_fixed_statistics(module) for module in folded.modules()) == left
    with torch.no_grad():
        expected = network(x)
        assert_close(folded(x), expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
