import copy

import pytest
import torch
from torch import nn

from detrex.modeling.backbone import TorchvisionBackbone
from detrex.modeling.plain_twin import filled_copy, keep_twin, twin_of


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 1))
    net.add_module("again", net[2])
    net.register_buffer("cache", torch.randn(5, 1, 1), persistent=False)
    return net


def test_twin_of__has_the_structure_and_modes_and_no_weights():
    net = network()
    assert twin_of(net) is net
    keep_twin(net)
    net.eval()
    net[1].train()
    for own in net.modules():
        twin = twin_of(own)
        assert twin is not own
        assert type(twin) is type(own)
        assert twin.training == own.training
    assert all(parameter.is_meta for parameter in twin_of(net).parameters())
    assert twin_of(net)[2] is twin_of(net).again


@pytest.mark.parametrize("mode", [True, False])
def test_filled_copy__computes_what_the_model_does(mode):
    """After its weights and statistics have changed; the twin itself stays without weights."""
    net = network().train(mode)
    keep_twin(net)
    with torch.no_grad():
        for tensor in (*net.parameters(), net[1].running_mean):
            tensor.add_(0.5)
    values = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    del values["cache"]
    copied = filled_copy(net, values)
    assert not copied.training
    images = torch.randn(2, 3, 7, 9)
    expected = copy.deepcopy(net).eval()(images)
    torch.testing.assert_close(copied(images), expected, rtol=0, atol=0)
    torch.testing.assert_close(copied.cache, net.cache, rtol=0, atol=0)
    assert copied[2] is copied.again
    copied[1].running_mean.zero_()
    assert net[1].running_mean.any()
    assert all(parameter.is_meta for parameter in twin_of(net).parameters())


def test_twin_of__a_graph_for_each_mode():
    backbone = TorchvisionBackbone("mobilenet_v3_small", out_features=["res3"])
    keep_twin(backbone)
    for mode in (True, False, True):
        twin = twin_of(backbone.train(mode)).network
        assert twin.training is mode
        assert twin.graph is (twin.train_graph if mode else twin.eval_graph)
