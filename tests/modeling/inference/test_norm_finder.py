import pytest
import torch
import torchvision
from detectron2.layers import Conv2d, CycleBatchNormList, FrozenBatchNorm2d
from timm.layers import BatchNormAct2d, StdConv2d
from torch import nn

from detrex.modeling.inference.norm_finder import find_foldable_norms, find_foldable_norms_on_meta


class Net(nn.Module):
    """A convolution, a norm, and a way through them."""

    def __init__(self, way, conv=None, norm=None, **parts):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3) if conv is None else conv
        self.norm = nn.BatchNorm2d(6) if norm is None else norm
        self.way, self.kept = way, []
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.way(self, x)


def _pairs(network, size=(7, 9)):
    found = find_foldable_norms_on_meta(network, torch.zeros(2, 3, *size))
    return [(pair.conv, pair.norm) for pair in found]


def _straight(net, x):
    return net.norm(net.conv(x))


def _keep(net, x):
    net.kept.append(net.conv(x))
    return net.norm(net.kept[-1])


def _shared_norm_pair(net, x):
    return net.norm(net.conv(net.norm(net.conv(x))))


FOLDED = {
    "live": Net(_straight).eval(),
    "no bias": Net(_straight, nn.Conv2d(3, 6, 3, bias=False)).eval(),
    "no affine": Net(_straight, norm=nn.BatchNorm2d(6, affine=False)).eval(),
    "keyword": Net(lambda net, x: net.norm(input=net.conv(x))).eval(),
    "read shape": Net(lambda net, x: net.norm(y := net.conv(x)) * y.shape[1]).eval(),
    "frozen, training": Net(_straight, norm=FrozenBatchNorm2d(6)).train(),
    "torchvision's": Net(_straight, norm=torchvision.ops.FrozenBatchNorm2d(6)).train(),
    "timm's": Net(_straight, norm=BatchNormAct2d(6)).eval(),
    "synchronised": Net(_straight, norm=nn.SyncBatchNorm(6)).eval(),
    "grouped": Net(_straight, nn.Conv2d(3, 6, 3, groups=3)).eval(),
    "reflected": Net(_straight, nn.Conv2d(3, 6, 3, padding=2, padding_mode="reflect")).eval(),
    "transposed": Net(_straight, nn.ConvTranspose2d(3, 6, 3)).eval(),
    "twice, always both": Net(
        _shared_norm_pair, nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
    ).eval(),
}


@pytest.mark.parametrize("network", FOLDED.values(), ids=FOLDED)
def test_find_foldable_norms__follows_the_tensor(network):
    assert _pairs(network) == [("conv", "norm")]


class OwnForward(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


class IgnoresBias(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(x, self.weight)


def _hooked():
    network = Net(_straight).eval()
    network.conv.register_forward_hook(lambda *_: None)
    return network


def _hooked_norm():
    network = Net(_straight).eval()
    network.norm.register_forward_hook(lambda _, __, output: output + 1)
    return network


def _tied():
    network = Net(lambda net, x: net.norm(net.conv(x)) + net.other(x), other=nn.Conv2d(3, 6, 3))
    network.other.weight = network.conv.weight
    return network.eval()


def _parametrised():
    network = Net(_straight)
    nn.utils.parametrizations.weight_norm(network.conv)
    return network.eval()


LEFT = {
    "live, training": Net(_straight).train(),
    "no statistics": Net(_straight, norm=nn.BatchNorm2d(6, track_running_stats=False)).eval(),
    "other norm": Net(_straight, norm=nn.GroupNorm(2, 6)).eval(),
    "own forward": Net(_straight, norm=OwnForward(6)).eval(),
    "given out": Net(lambda net, x: (y := net.conv(x), net.norm(y))).eval(),
    "given out, a view": Net(lambda net, x: {"x": (y := net.conv(x))[:, :1], "y": net.norm(y)}),
    "shortcut": Net(lambda net, x: net.norm(y := net.conv(x)) + y).eval(),
    "kept": Net(_keep).eval(),
    "activated before": Net(lambda net, x: net.norm(net.conv(x).relu())).eval(),
    "changed in place": Net(lambda net, x: net.norm(net.conv(x).add_(1))).eval(),
    "permuted": Net(lambda net, x: net.norm(net.conv(x).transpose(2, 3))).eval(),
    "a second norm": Net(
        lambda net, x: net.norm(y := net.conv(x)) + net.other(y), other=nn.BatchNorm2d(6)
    ).eval(),
    "a second convolution": Net(
        lambda net, x: net.norm(net.conv(x)) + net.norm(net.other(x)), other=nn.Conv2d(3, 6, 3)
    ).eval(),
    "norm twice on it": Net(lambda net, x: net.norm(y := net.conv(x)) + net.norm(y)).eval(),
    "once without norm": Net(lambda net, x: net.norm(net.conv(x)) + net.conv(x)).eval(),
    "a norm per call": Net(
        lambda net, x: net.norm(net.conv(x)) + net.norm(net.conv(x)),
        norm=CycleBatchNormList(2, num_features=6),
    ).eval(),
    "weight read": Net(lambda net, x: net.norm(net.conv(x)) + net.conv.weight.sum()).eval(),
    "norm's weight read": Net(lambda net, x: net.norm(net.conv(x)) * net.norm.weight.sum()).eval(),
    "weight computed": Net(_straight, StdConv2d(3, 6, 3)).eval(),
    "weight parametrised": _parametrised(),
    "weight shared": _tied(),
    "bias ignored": Net(_straight, IgnoresBias(3, 6, 3, bias=False)).eval(),
    "held in a list": Net(lambda net, x: net.held[0](net.conv(x)), held=None).eval(),
    "not run": Net(lambda net, x: x).eval(),
    "hook": _hooked(),
    "hook on the norm": _hooked_norm(),
}
LEFT["given out, a view"].eval()
LEFT["held in a list"].held = [LEFT["held in a list"].norm]


@pytest.mark.parametrize("network", LEFT.values(), ids=LEFT)
def test_find_foldable_norms__leaves(network):
    assert _pairs(network) == []


def test_find_foldable_norms__inside_a_convolution_of_detectron2():
    conv = Conv2d(3, 6, 3, norm=nn.BatchNorm2d(6), activation=nn.functional.relu)
    assert _pairs(nn.Sequential(conv).eval()) == [("0", "0.norm")]


def test_find_foldable_norms__one_and_three_dimensions():
    rows = nn.Sequential(nn.Conv1d(3, 6, 2), nn.BatchNorm1d(6)).eval()
    boxes = nn.Sequential(nn.Conv3d(3, 6, 2), nn.BatchNorm3d(6)).eval()
    assert find_foldable_norms_on_meta(rows, torch.zeros(2, 3, 7))
    assert find_foldable_norms_on_meta(boxes, torch.zeros(2, 3, 5, 6, 7))


def test_find_foldable_norms__of_a_norm_with_two_names():
    network = Net(_straight).eval()
    network.alias = network.norm
    assert _pairs(network) == [("conv", "norm")]


def test_find_foldable_norms__changes_nothing():
    network = Net(_straight, nn.Conv2d(3, 6, 3, bias=False)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = find_foldable_norms(network, lambda net: net(torch.zeros(2, 3, 7, 9)))
    assert len(found) == 1
    assert network.conv.bias is None
    assert not network.norm._forward_hooks
    assert not network.norm._forward_pre_hooks
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_find_foldable_norms__undoes_its_hooks_after_an_error():
    network = Net(lambda net, x: net.norm(net.conv(x)).missing, nn.Conv2d(3, 6, 3, bias=False))
    with pytest.raises(AttributeError, match="missing"):
        find_foldable_norms(network.eval(), lambda net: net(torch.zeros(2, 3, 7, 9)))
    assert network.conv.bias is None
    assert not network.norm._forward_hooks
