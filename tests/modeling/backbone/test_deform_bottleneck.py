import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from detrex.modeling.backbone import DeformBottleneckBlock
from tests.reference.deform_conv import deform_conv2d


def block(**kwargs):
    net = DeformBottleneckBlock(6, 10, bottleneck_channels=4, norm="", **kwargs)
    torch.nn.init.normal_(net.conv2_offset.weight, std=0.3)
    torch.nn.init.normal_(net.conv2_offset.bias, std=0.5)
    return net


def reference(net, x, groups, modulated):
    out = F.relu(net.conv1(x))
    offset, mask = net.conv2_offset(out), None
    if modulated:
        offset, mask = offset[:, : 18 * groups], offset[:, 18 * groups :].sigmoid()
    conv = net.conv2
    out = deform_conv2d(
        out, offset, mask, conv.weight, conv.stride[0], conv.dilation[0], conv.groups, groups
    )
    return F.relu(net.conv3(F.relu(out)) + net.shortcut(x))


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"dilation": 2, "deform_num_groups": 2},
        {"stride": 2, "stride_in_1x1": True, "num_groups": 2},
    ],
)
def test_deform_bottleneck_block__equals_a_naive_loop(modulated, options):
    net = block(deform_modulated=modulated, **options)
    x = torch.randn(2, 6, 7, 5)
    with torch.no_grad():
        expected = reference(net, x, options.get("deform_num_groups", 1), modulated)
    assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("modulated", "channels"), [(False, 36), (True, 54)])
def test_deform_bottleneck_block__has_the_keys_of_detectron2(modulated, channels):
    net = DeformBottleneckBlock(
        6, 10, bottleneck_channels=4, deform_modulated=modulated, deform_num_groups=2
    )
    layers = {key.split(".", 1)[0] for key in net.state_dict()}
    assert layers == {"shortcut", "conv1", "conv2_offset", "conv2", "conv3"}
    assert net.state_dict()["conv2_offset.weight"].shape == (channels, 4, 3, 3)
    assert net.state_dict()["conv2.norm.running_mean"].shape == (4,)
    assert not net.conv2_offset.weight.any()
    assert "conv2.bias" not in net.state_dict()


def test_deform_bottleneck_block__adds_the_input_without_a_shortcut():
    net = DeformBottleneckBlock(6, 6, bottleneck_channels=4, norm="")
    torch.nn.init.zeros_(net.conv3.weight)
    x = torch.randn(2, 6, 7, 5)
    assert_close(net(x), x.relu(), rtol=0, atol=0)
