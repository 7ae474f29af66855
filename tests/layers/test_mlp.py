"""Stacks of linear layers."""

import copy

import pytest
import torch
from torch import nn

from detrex.layers import FFN, MLP
from detrex.layers.mlp import PART


def test_mlp__relu_between_layers():
    mlp = MLP(5, 7, 3, 3)
    x = torch.randn(2, 11, 5)
    first, second, third = mlp.layers
    torch.testing.assert_close(mlp(x), third(second(first(x).relu()).relu()))
    assert [name for name, _ in mlp.named_parameters()][::2] == [
        "layers.0.weight",
        "layers.1.weight",
        "layers.2.weight",
    ]


def test_mlp__single_layer_maps_input_to_output():
    assert MLP(5, 7, 3, 1)(torch.randn(2, 5)).shape == (2, 3)


def test_mlp__needs_a_layer():
    with pytest.raises(ValueError, match="at least one layer, got num_layers=0"):
        MLP(5, 7, 3, 0)


def test_ffn__keys_and_residual():
    ffn = FFN(5, 7, num_fcs=3)
    assert sorted(ffn.state_dict()) == [
        "layers.0.0.bias",
        "layers.0.0.weight",
        "layers.1.0.bias",
        "layers.1.0.weight",
        "layers.2.bias",
        "layers.2.weight",
    ]
    x, identity = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    hidden = ffn.layers[1][0](ffn.layers[0][0](x).relu()).relu()
    out = ffn.layers[2](hidden)
    torch.testing.assert_close(ffn(x), x + out)
    torch.testing.assert_close(ffn(x, identity), identity + out)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 0, 5), (2, 3, 2, 5)])
def test_ffn__gradients_pass_no_copies_of_a_view(shape):
    ffn, x = FFN(5, 7), torch.randn(shape, requires_grad=True)
    out = ffn(x)
    hidden = (x @ ffn.layers[0][0].weight.T + ffn.layers[0][0].bias).relu()
    expected = x + hidden @ ffn.layers[1].weight.T + ffn.layers[1].bias
    seed = torch.randn_like(out)
    found = torch.autograd.grad(out, [x, *ffn.parameters()], seed, retain_graph=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, [x, *ffn.parameters()], seed))
    assert not [name for name in _nodes(out.grad_fn) if "CopySlices" in name]


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.GELU(), nn.Softmax(dim=0)])
def test_ffn__in_parts_equals_all_tokens_at_once(activation):
    ffn = FFN(5, 7, activation=activation, ffn_drop=0.5).eval()
    x = torch.randn(2, PART * torch.get_num_threads(), 5)
    expected = ffn(x)
    seen = []
    ffn.layers[0][0].register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    with torch.no_grad():
        torch.testing.assert_close(ffn(x, x + 1), expected + 1, rtol=1e-5, atol=1e-6)
    assert (len(seen) > 1) == (not isinstance(activation, nn.Softmax))


def _nodes(node):
    return [node.name(), *(n for child, _ in node.next_functions if child for n in _nodes(child))]


def test_ffn__without_identity_may_change_width():
    ffn = FFN(5, 7, output_dim=3, activation=nn.GELU(), fc_bias=False, add_identity=False)
    assert ffn(torch.randn(2, 5)).shape == (2, 3)
    assert sorted(ffn.state_dict()) == ["layers.0.0.weight", "layers.1.weight"]


def test_ffn__one_activation_under_the_names_of_the_original():
    """It stands in every hidden layer and beside them: checkpoints have it several times."""
    ffn = FFN(5, 7, num_fcs=3, activation=nn.PReLU())
    names = [name for name, tensor in ffn.state_dict().items() if tensor.shape == (1,)]
    assert sorted(names) == ["activation.weight", "layers.0.1.weight", "layers.1.1.weight"]
    assert len(list(ffn.parameters())) == 7
    twin = copy.deepcopy(ffn)
    twin.activation.weight.data.fill_(-3.0)
    assert twin.layers[1][1].weight.item() == -3.0
    assert ffn.activation.weight.item() == 0.25


def test_ffn__needs_two_layers():
    with pytest.raises(ValueError, match="at least two linear layers, got num_fcs=1"):
        FFN(5, 7, num_fcs=1)
    with pytest.raises(TypeError, match="a module as activation"):
        FFN(5, 7, activation="relu")
