import logging

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn
from torch.testing import assert_close

from detrex.errors import ConfigError
from detrex.layers import MultiScaleDeformableAttention
from detrex.modeling.inference import number_format
from detrex.modeling.inference.number_format import (
    fastest_dtype,
    halve_weights,
    keep_places_exact,
    settle_dtype,
)

CPU = torch.device("cpu")


@pytest.fixture
def gains(monkeypatch):
    """The gains of a convolution and of a linear layer that a trial finds, in this order."""
    found = []
    monkeypatch.setattr(number_format, "_gain", lambda *_: found.pop(0))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    fastest_dtype.cache_clear()
    yield found
    fastest_dtype.cache_clear()


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        (None, None),
        ("float32", None),
        (torch.float32, None),
        ("bfloat16", torch.bfloat16),
        (torch.float16, torch.float16),
    ],
)
def test_settle_dtype__by_name(given, settled):
    assert settle_dtype(given, CPU) == settled


@pytest.mark.parametrize("given", ["bf16", torch.int8, torch.float64, 16, "autos"])
def test_settle_dtype__refuses(given):
    with pytest.raises(ConfigError, match=r"number format of an evaluation is .* expected 'auto'"):
        settle_dtype(given, CPU)


@pytest.mark.parametrize(
    ("convolution", "linear", "settled"),
    [(3.0, 2.0, torch.bfloat16), (0.7, 2.0, None), (3.0, 0.7, None), (1.1, 1.1, None)],
)
def test_settle_dtype__auto_asks_for_both_layers(gains, caplog, convolution, linear, settled):
    gains += [convolution, linear]
    with caplog.at_level(logging.INFO, "detrex"):
        assert settle_dtype("auto", CPU) == settled
    name = "bfloat16" if settled else "float32"
    assert f"dtype='auto' is {name}: in a trial on this cpu" in caplog.text
    assert f"a convolution was {convolution:.2f} and a linear layer {linear:.2f}" in caplog.text


def test_settle_dtype__auto_without_the_arithmetic(gains, caplog, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with caplog.at_level(logging.INFO, "detrex"):
        assert settle_dtype("auto", CPU) is None
    assert "is float32: this cpu has no arithmetic in bfloat16" in caplog.text


def test_fastest_dtype__of_another_device():
    dtype, reason = fastest_dtype("meta", 1)
    assert dtype == torch.float32
    assert "nothing is known of bfloat16 on meta" in reason


def test_fastest_dtype__tries_for_real():
    assert fastest_dtype("cpu", torch.get_num_threads())[0] in (torch.float32, torch.bfloat16)


def test_halve_weights__of_layers_that_hand_them_on():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        StdConv2d(4, 4, 1),
        nn.Linear(4, 4),
        nn.Embedding(4, 4),
    )
    halve_weights(network, torch.bfloat16, {id(network[3])})
    names = [name for name, p in network.named_parameters() if p.dtype == torch.bfloat16]
    assert names == ["0.weight", "0.bias"]


def test_halve_weights__keeps_a_shared_weight_shared():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    halve_weights(network, torch.float16, set())
    assert network[1].weight is network[0].weight
    assert network[0].weight.dtype == torch.float16


def test_keep_places_exact__inside_autocast():
    attention = MultiScaleDeformableAttention(16, 2, 1, 2, batch_first=True)
    nn.init.normal_(attention.sampling_offsets.weight)
    x = torch.randn(2, 5, 16)
    expected = attention.sampling_offsets(x)
    assert keep_places_exact(attention) == {id(attention.sampling_offsets)}
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(attention.sampling_offsets(x), expected, rtol=0, atol=0)
