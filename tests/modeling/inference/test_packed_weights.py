import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detrex.modeling.inference import packed_weights
from detrex.modeling.inference.packed_weights import PackedWeight, pack_weights

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here"
)


@pytest.fixture
def packs_linear(monkeypatch):
    monkeypatch.setattr(packed_weights, "packed_linear_is_faster", lambda *_: True)
    monkeypatch.setattr(packed_weights, "_LEAST_WORK", 0)


def _draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


LAYERS = {
    "1x1": (nn.Conv2d(6, 8, 1), (2, 6, 7, 5)),
    "no bias": (nn.Conv2d(6, 8, 3, bias=False), (2, 6, 7, 5)),
    "strided": (nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 7, 5)),
    "uneven": (nn.Conv2d(6, 8, (3, 1), padding=(1, 0), dilation=(1, 2)), (2, 6, 7, 5)),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6, padding=1), (2, 6, 7, 5)),
    "grouped": (nn.Conv2d(6, 9, 3, groups=3), (2, 6, 7, 5)),
    "same": (nn.Conv2d(6, 8, 3, padding="same"), (2, 6, 7, 5)),
    "reflected": (nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), (2, 6, 7, 5)),
    "no batch": (nn.Conv2d(6, 8, 3), (6, 7, 5)),
    "no images": (nn.Conv2d(6, 8, 3), (0, 6, 7, 5)),
    "linear": (nn.Linear(6, 8), (2, 7, 6)),
    "linear, one row": (nn.Linear(6, 8, bias=False), (6,)),
}


@pytest.mark.usefixtures("packs_linear")
@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_pack_weights__keeps_the_output(layer, shape):
    packed = copy.deepcopy(layer).requires_grad_(False)
    assert pack_weights(packed) == 1
    for x in (
        _draw(*shape),
        _draw(*shape).to(memory_format=torch.channels_last) if len(shape) == 4 else _draw(*shape),
    ):
        with torch.no_grad():
            assert_close(packed(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("packs_linear")
def test_pack_weights__uses_the_reordered_form():
    network = nn.Sequential(nn.Conv2d(6, 8, 1), nn.Linear(5, 7)).requires_grad_(False)
    pack_weights(network)
    x = _draw(2, 6, 7, 5)
    expected = network(x)
    assert all(layer.weight.forms for layer in network)
    for layer in network:
        layer.weight.data.zero_()
    assert_close(network(x), expected, rtol=0, atol=0)


def test_pack_weights__leaves_small_linear_layers(monkeypatch):
    monkeypatch.setattr(packed_weights, "packed_linear_is_faster", lambda *_: True)
    layer = nn.Linear(64, 128).requires_grad_(False)
    assert pack_weights(layer) == 1
    layer(_draw(3, 64))
    assert layer.weight.forms is None
    layer(_draw(4096, 64))
    assert layer.weight.forms


def test_pack_weights__keeps_one_form_for_many_sizes():
    layer = nn.Conv2d(64, 96, 1).requires_grad_(False)
    plain = copy.deepcopy(layer)
    pack_weights(layer)
    for size in [(1, 1), *((20 + k, 25) for k in range(6)), (50, 84)]:
        x = _draw(1, 64, *size)
        assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-5)
    assert len({id(form) for form in layer.weight.forms.values()}) <= 3


def test_pack_weights__of_one_weight_with_two_uses():
    """Two layers share a weight, with different strides."""
    network = nn.Sequential(nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3, stride=2)).requires_grad_(False)
    network[1].weight = network[0].weight
    plain = copy.deepcopy(network)
    assert pack_weights(network) == 1
    assert network[0].weight is network[1].weight
    assert_close(network(_draw(2, 6, 9, 8)), plain(_draw(2, 6, 9, 8)), rtol=1e-5, atol=1e-5)


def test_pack_weights__leaves_what_learns():
    assert pack_weights(nn.Conv2d(6, 8, 1)) == 0
    assert pack_weights(nn.Conv2d(6, 8, 1).double().requires_grad_(False)) == 0


def test_pack_weights__gives_gradients_of_its_input():
    layer = nn.Conv2d(6, 8, 1).requires_grad_(False)
    pack_weights(layer)
    x = _draw(2, 6, 7, 5).requires_grad_()
    layer(x).sum().backward()
    expected = layer.weight.sum(0).view(6, 1, 1).expand_as(x)
    assert_close(x.grad, expected.as_subclass(torch.Tensor), rtol=1e-5, atol=1e-5)


def test_pack_weights__under_autocast():
    layer = nn.Conv2d(6, 8, 3).requires_grad_(False)
    packed = copy.deepcopy(layer)
    pack_weights(packed)
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = layer(_draw(2, 6, 7, 5)), packed(_draw(2, 6, 7, 5))
    assert actual.dtype == torch.bfloat16
    assert_close(actual, expected, rtol=0.02, atol=0.02)


def test_pack_weights__copies_and_saves_as_a_parameter():
    layer = nn.Conv2d(6, 8, 3).requires_grad_(False)
    pack_weights(layer)
    layer(_draw(2, 6, 7, 5))
    clone = copy.deepcopy(layer)
    assert isinstance(clone.weight, PackedWeight)
    assert clone.weight.forms is None
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    assert_close(torch.load(stored)["weight"], layer.weight.detach(), rtol=0, atol=0)


def test_pack_weights__can_be_exported():
    layer = nn.Conv2d(6, 8, 3).requires_grad_(False)
    pack_weights(layer)
    x = _draw(2, 6, 7, 5)
    expected = layer(x)
    exported = torch.export.export(layer, (x,)).module()
    assert_close(exported(x), expected, rtol=1e-5, atol=1e-5)


CHANGES = {
    "loaded": lambda packed, other: packed.load_state_dict(other.state_dict()),
    "set": lambda packed, other: setattr(packed[0].weight, "data", other[0].weight.data.clone()),
    "of another number format": lambda packed, _: packed.double(),
}


@pytest.mark.usefixtures("packs_linear")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("name", ["1x1", "linear"])
def test_packed_weight__of_weights_that_were_changed(name, change):
    layer, shape = LAYERS[name]
    network = nn.Sequential(copy.deepcopy(layer)).requires_grad_(False)
    packed, other = copy.deepcopy(network), copy.deepcopy(network)
    other[0].weight.mul_(-2)
    pack_weights(packed)
    packed(_draw(*shape))
    change(packed, other)
    x = _draw(*shape).to(packed[0].weight.dtype)
    network.to(x).load_state_dict(packed.state_dict())
    assert_close(packed(x), network(x), rtol=1e-5, atol=1e-5)


def test_packed_weight__is_saved_without_its_form():
    layer = copy.deepcopy(LAYERS["1x1"][0]).requires_grad_(False)
    pack_weights(layer)
    x = _draw(2, 6, 7, 5)
    expected = layer(x)
    loaded = pickle.loads(pickle.dumps(layer))
    assert isinstance(loaded.weight, PackedWeight)
    assert_close(loaded(x), expected, rtol=0, atol=0)
