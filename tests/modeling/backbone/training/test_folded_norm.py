"""Frozen norms folded in training, against the convolution and the norm one after the other."""

import copy
import pickle

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from detrex.modeling.backbone import BasicStem, ResNet, TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.training import folded_norm
from detrex.modeling.backbone.training.folded_norm import (
    ConvWithNorm,
    conv_with_norm,
    fold_norms_in_training,
    folds,
)
from detrex.modeling.backbone.training.frozen_norm import FrozenBatchNormAct


def _random_statistics(network):
    for norm in network.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.weight.uniform_(0.5, 2)
            norm.running_var.uniform_(0.5, 2)
            norm.bias.normal_()
            norm.running_mean.normal_()
    return network


def _conv(**options):
    torch.manual_seed(0)
    options = {"kernel_size": 3, "bias": False, **options}
    conv = Conv2d(4, 6, norm=FrozenBatchNorm2d(6), activation=nn.functional.relu, **options)
    return _random_statistics(conv)


def _twin(conv):
    twin = copy.deepcopy(conv)
    fold_norms_in_training(twin)
    return twin


def _run(module, x, **how):
    x = x.detach().requires_grad_()
    out = module(x, **how)
    if isinstance(out, dict):
        out = torch.cat([level.flatten() for level in out.values()])
    parameters = [p for p in module.parameters() if p.requires_grad]
    torch.manual_seed(1)
    return out, torch.autograd.grad(out, [x, *parameters], torch.randn_like(out))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True, "stride": 2, "padding": 1},
        {"groups": 2, "dilation": 2, "padding": (2, 0)},
        {"kernel_size": 1},
        {"padding": "same"},
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_conv_with_norm__outputs_and_gradients_are_those_of_the_two(options, memory_format):
    conv = _conv(**options)
    x = torch.randn(2, 4, 9, 7).to(memory_format=memory_format)
    torch.testing.assert_close(_run(_twin(conv), x), _run(conv, x), rtol=1e-5, atol=1e-5)


def test_conv_with_norm__second_derivatives():
    conv = _twin(_conv(bias=True)).double()
    x = torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias):
        conv.weight, conv.bias = weight, bias
        return conv_with_norm(conv, conv.norm, x)

    inputs = (x, conv.weight, conv.bias)
    del conv.weight, conv.bias
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_conv_with_norm__under_autocast():
    conv, x = _conv(bias=True), torch.randn(2, 4, 9, 7)
    with torch.autocast("cpu", torch.bfloat16):
        (out, gradients), (expected, others) = _run(_twin(conv), x), _run(conv, x)
    assert out.dtype == expected.dtype
    assert [g.dtype for g in gradients] == [g.dtype for g in others]
    torch.testing.assert_close((out, gradients), (expected, others), rtol=0.05, atol=0.2)


def test_conv_with_norm__without_data():
    conv, norm = nn.Conv2d(3, 5, 3, 2, device="meta"), FrozenBatchNorm2d(5).to("meta")
    image = torch.empty(2, 3, 11, 7, device="meta")
    assert conv_with_norm(conv, norm, image).shape == norm(conv(image)).shape


def test_fold_norms_in_training__keeps_no_more_for_the_backward_pass():
    conv, x = _conv(), torch.randn(2, 4, 9, 7, requires_grad=True)

    def kept(module):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            module(x)
        return sum(sizes)

    assert kept(_twin(conv)) <= kept(conv)


@pytest.mark.parametrize(
    "change",
    [
        lambda conv: conv.eval(),
        lambda conv: setattr(conv, "norm", nn.BatchNorm2d(6)),
        lambda conv: setattr(conv, "norm", nn.BatchNorm2d(6).eval()),
        lambda conv: setattr(conv, "norm", nn.GroupNorm(2, 6)),
        lambda conv: conv.norm.register_forward_hook(lambda *_: None),
        lambda conv: conv.norm.register_full_backward_hook(lambda *_: None),
        lambda conv: (
            setattr(conv.norm, "weight", nn.Parameter(torch.ones(6)))
            if conv.norm._buffers.pop("weight") is not None
            else None
        ),
    ],
)
def test_folds__only_a_frozen_norm_that_nobody_listens_to(change):
    conv = _twin(_conv())
    assert folds(conv, conv.norm)
    change(conv)
    assert not folds(conv, conv.norm)


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet__folds_in_training_and_is_the_same_network(depth):
    stages = ResNet.make_default_stages(depth, norm="FrozenBN")
    network = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res2"], freeze_at=1)
    _random_statistics(network).train()
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if type(module) is ConvWithNorm:
            module.__class__ = Conv2d
    assert list(network.state_dict()) == list(plain.state_dict())
    assert str(network).replace("ConvWithNorm", "Conv2d") == str(plain)
    x = torch.randn(2, 3, 40, 33)
    found = _run(network, x)
    largest = max(float(gradient.abs().max()) for gradient in found[1])
    torch.testing.assert_close(found, _run(plain, x), rtol=1e-4, atol=1e-5 * largest)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert all(torch.equal(a, b) for a, b in zip(_run(twin, x)[1], found[1], strict=True))
    with torch.no_grad():
        assert torch.equal(network.eval()(x)["res2"], plain.eval()(x)["res2"])


def _timm(**options):
    torch.manual_seed(0)
    return TimmBackbone("test_resnet", norm_layer="FrozenBN", freeze_at=1, **options)


def _torchvision(**options):
    torch.manual_seed(0)
    return TorchvisionBackbone(
        "mobilenet_v3_small", return_nodes={"features.3": "res3"}, norm_layer="FrozenBN", **options
    )


def _folded(out):
    """Number of convolutions in the graph of a tensor that folded a norm."""
    seen, nodes = set(), [out.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [child for child, _ in node.next_functions]
    return sum(node.name() == "_FoldedBackward" for node in seen)


@pytest.mark.parametrize("build", [_timm, _torchvision])
def test_during__wrapped_network_is_the_same_with_less_in_its_graph(build, monkeypatch):
    network = _random_statistics(build().train())
    names, x = list(network.state_dict()), torch.randn(2, 3, 67, 50)
    found = _run(network, x)
    assert _folded(found[0]) >= 6
    assert list(network.state_dict()) == names
    assert not any("forward" in vars(module) for module in network.modules())
    twin = pickle.loads(pickle.dumps(copy.deepcopy(network)))
    assert all(torch.equal(a, b) for a, b in zip(_run(twin, x)[1], found[1], strict=True))
    monkeypatch.setattr(folded_norm, "_pairs_of", lambda *_: [])
    plain = _run(copy.deepcopy(network), x)
    assert _folded(plain[0]) == 0
    largest = max(float(gradient.abs().max()) for gradient in plain[1])
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("build", [_timm, _torchvision])
def test_during__network_that_computes_activations_again(build):
    network, plain = build(grad_checkpointing=True).train(), build().train()
    for backbone in (network, plain):
        _random_statistics(backbone)
    plain.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 64, 64)
    found = _run(network, x)
    assert _folded(found[0]) == 0
    torch.testing.assert_close(found, _run(plain, x), rtol=1e-4, atol=1e-3)


def test_during__module_that_is_exchanged_or_listened_to_later():
    network, x = _random_statistics(_timm().train()), torch.randn(2, 3, 64, 64)
    before = _folded(_run(network, x)[0])
    block = network.timm_model.layer2[0]
    for listen in (block.conv1.register_forward_hook, block.conv1.register_full_backward_hook):
        handle = listen(lambda *_: None)
        assert _folded(_run(network, x)[0]) == before - 1
        handle.remove()
    block.bn1 = nn.BatchNorm2d(block.bn1.num_features)
    assert _folded(_run(network, x)[0]) == before - 1
    assert block.bn1.num_batches_tracked == 1
    network.eval()
    assert _folded(_run(network, x)[0]) == 0


def test_during__errors_leave_nothing_behind():
    network = _timm().train()
    network.timm_model.layer2[0].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(torch.randn(1, 3, 64, 64))
    assert not any("forward" in vars(module) for module in network.modules())


def test_conv_with_norm__activation_of_the_norm():
    conv = _conv()
    conv.norm = _random_statistics(FrozenBatchNormAct(6, act=nn.Tanh()))
    conv.activation, x = None, torch.randn(2, 4, 7, 6)
    expected = conv.train()(x)
    torch.testing.assert_close(_twin(conv)(x), expected, rtol=1e-5, atol=1e-5)


def test_conv_with_norm__under_transforms_of_functions():
    conv = _conv().train()
    conv.activation, x = None, torch.randn(3, 4, 7, 6)
    expected = conv(x)
    found = torch.vmap(lambda image: _twin(conv)(image[None])[0])(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
