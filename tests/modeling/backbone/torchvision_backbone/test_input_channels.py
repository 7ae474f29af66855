import pytest
import torch
import torchvision
from timm.models._manipulate import adapt_input_conv
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.torchvision_backbone.input_channels import set_input_channels

STEMS = {
    "resnet18": "conv1",
    "mobilenet_v3_small": "features.0.0",
    "vgg11": "features.0",
    "densenet121": "features.conv0",
    "efficientnet_b0": "features.0.0",
    "shufflenet_v2_x0_5": "conv1.0",
    "vit_b_32": "conv_proj",
    "swin_t": "features.0.0",
    "maxvit_t": "stem.0.0",
    "squeezenet1_1": "features.0",
}


def built(name, device="meta"):
    with torch.device(device):
        return torchvision.models.get_model(name)


@pytest.mark.parametrize("in_channels", [1, 5])
@pytest.mark.parametrize("name", STEMS)
def test_set_input_channels__finds_the_stem(name, in_channels):
    network = built(name)
    shapes = {n: p.shape for n, p in network.named_parameters()}
    set_input_channels(network, in_channels)
    stem = network.get_submodule(STEMS[name])
    assert stem.in_channels == stem.weight.shape[1] == in_channels
    changed = [n for n, p in network.named_parameters() if p.shape != shapes[n]]
    assert changed == [f"{STEMS[name]}.weight"]
    with torch.no_grad():
        assert network.eval()(torch.empty(2, in_channels, 224, 224, device="meta")).shape[0] == 2


@pytest.mark.parametrize("in_channels", [1, 2, 4, 6, 7, 12])
def test_set_input_channels__kernel_is_timms(in_channels):
    network = built("resnet18", "cpu")
    expected = adapt_input_conv(in_channels, network.conv1.weight.detach())
    network.conv1.weight.requires_grad_(False)
    set_input_channels(network, in_channels)
    torch.testing.assert_close(network.conv1.weight.detach(), expected, rtol=0, atol=1e-7)
    assert not network.conv1.weight.requires_grad


@pytest.mark.parametrize("in_channels", [1, 6, 12])
def test_set_input_channels__same_response_to_grey(in_channels):
    network = built("resnet18", "cpu").eval()
    grey = torch.randn(2, 1, 33, 47)
    expected = network.conv1(grey.expand(-1, 3, -1, -1))
    set_input_channels(network, in_channels)
    got = network.conv1(grey.expand(-1, in_channels, -1, -1))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_set_input_channels__three_is_no_change():
    network = built("resnet18", "cpu")
    weight = network.conv1.weight
    set_input_channels(network, 3)
    assert network.conv1.weight is weight


def test_set_input_channels__every_branch_that_sees_the_image():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.later = nn.Conv2d(5, 7, 1)
            self.wide, self.narrow = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 1)

        def forward(self, x):
            return self.later(self.wide(x) + self.narrow(x))

    network = Branches()
    set_input_channels(network, 4)
    assert network(torch.randn(2, 4, 11, 13)).shape == (2, 7, 11, 13)


@pytest.mark.parametrize("in_channels", [0, -1, 2.0, True, "3"])
def test_set_input_channels__range(in_channels):
    with pytest.raises(BackboneError, match="in_channels must be a positive integer, got"):
        set_input_channels(nn.Conv2d(3, 5, 1), in_channels)


def test_set_input_channels__network_that_reads_channels_is_left_as_it_was():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)

        def forward(self, x):
            return self.conv(torch.stack([x[:, 0], x[:, 1], x[:, 2]], 1))

    network = Reads()
    weight = network.conv.weight
    with pytest.raises(BackboneError, match=r"elsewhere than in its first convolution \(conv\)"):
        set_input_channels(network, 1)
    assert network.conv.weight is weight
    assert network.conv.in_channels == 3


def test_set_input_channels__network_without_a_convolution():
    network = nn.Sequential(nn.Flatten(2), nn.LazyLinear(5))
    network(torch.zeros(1, 3, 224, 224))
    with pytest.raises(BackboneError, match="no convolution of Sequential sees its image"):
        set_input_channels(network, 4)
