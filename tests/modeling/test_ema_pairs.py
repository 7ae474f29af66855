import pytest
import torch
from torch import nn

from detrex.errors import CheckpointError
from detrex.modeling.ema import EMAState, EMAUpdater
from detrex.modeling.ema_pairs import EMAPairs


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 7))
    net.add_module("alias", net[2])
    return net


def change(net):
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            value.add_(torch.ones_like(value))


def exchange_parameter(net, state):
    net[0].weight = nn.Parameter(net[0].weight.detach() * 3)


def exchange_module(net, state):
    net[2] = net.alias = nn.Linear(5, 7)


def exchange_buffer(net, state):
    net[1].running_mean = net[1].running_mean + 5


def convert(net, state):
    net.double()


def load_state(net, state):
    state.load_state_dict({name: value * 2 for name, value in state.state_dict().items()})


def set_average(net, state):
    state.state["0.bias"] = torch.zeros(5)


def wrap(net, state):
    net[0] = nn.Sequential()
    net[0] = nn.Conv2d(3, 5, 3)


def nothing(net, state):
    pass


CHANGES = [
    *(nothing, exchange_parameter, exchange_module, exchange_buffer),
    *(convert, load_state, set_average, wrap),
]


@pytest.mark.parametrize("exchange", CHANGES)
def test_update__follows_what_the_model_and_the_state_hold_now(exchange):
    """Against the formula over a fresh walk by name; earlier steps fill what is kept."""
    net = network()
    state = EMAState.FromModel(net)
    updater = EMAUpdater(state, decay=0.75)
    for step in range(4):
        change(net)
        if step == 2:
            exchange(net, state)
        before = {name: value.clone() for name, value in state.state_dict().items()}
        updater.update(net)
        for name, value in EMAState().get_model_state_iterator(net):
            expected = value
            if value.is_floating_point():
                expected = 0.75 * before[name] + 0.25 * value.detach().to(before[name].dtype)
            torch.testing.assert_close(state.state[name], expected, rtol=1e-6, atol=1e-7)


def test_update__another_model_is_seen():
    nets = [network(), network()]
    change(nets[1])
    state = EMAState.FromModel(nets[0])
    updater = EMAUpdater(state, decay=0.5)
    for net in nets:
        updater.update(net)
    torch.testing.assert_close(state.state["0.bias"], (nets[0][0].bias + nets[1][0].bias) / 2)


@pytest.mark.parametrize(
    ("layer", "what"), [(nn.Linear(5, 7, bias=False), "no"), (nn.Linear(5, 3), "another shape of")]
)
def test_update__a_weight_without_an_average_is_named(layer, what):
    net = network()
    net[2] = net.alias = nn.Linear(5, 7, bias=False)
    updater = EMAUpdater(EMAState.FromModel(net))
    updater.update(net)
    net[2] = layer if what != "no" else nn.Linear(5, 7)
    name = "2.bias" if what == "no" else "2.weight"
    with pytest.raises(CheckpointError, match=f"has {what} '{name}'.*init_state"):
        updater.update(net)


def test_are_those_of__sees_a_module_that_was_added():
    net = network()
    state = EMAState.FromModel(net)
    pairs = EMAPairs(state.state, net, state.get_model_state_iterator(net))
    assert pairs.are_those_of(state.state, net)
    net[0].add_module("more", nn.Identity())
    assert not pairs.are_those_of(state.state, net)
