"""ConvNeXt held against torchvision's."""

import itertools

import pytest
import torch
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import nn
from torch.testing import assert_close
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt

from detrex.errors import BackboneError
from detrex.modeling.backbone import ConvNeXt
from detrex.modeling.backbone.convnext import Block

DEPTHS, DIMS = [1, 2, 1, 1], [8, 12, 16, 24]


def build(**kwargs):
    torch.manual_seed(0)
    network = ConvNeXt(**{"depths": DEPTHS, "dims": DIMS, **kwargs})
    for name, parameter in network.named_parameters():
        if name.endswith("gamma") or "norm" in name:
            parameter.data.normal_(1.0, 0.3)
    return network


def twin_of(network):
    """torchvision's network with the same weights, and the features of its stages."""
    dims = [*DIMS, None]
    blocks = [
        CNBlockConfig(a, b, n) for (a, b), n in zip(itertools.pairwise(dims), DEPTHS, strict=True)
    ]
    twin = TorchvisionConvNeXt(blocks).eval()
    twin.classifier = nn.Identity()
    # In the order of registration, except that a block's scale comes first in both.
    ours = [
        p
        for i in range(4)
        for part in ("downsample_layers", "stages")
        for p in network.get_submodule(f"{part}.{i}").parameters()
    ]
    theirs = list(twin.features.parameters())
    for target, source in zip(theirs, ours, strict=True):
        target.data.copy_(source.data.reshape(target.shape))
    return twin.features


def test_forward__equals_torchvision():
    network = build(layer_scale_init_value=1.0).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        outputs, maps = network(x), []
        for layer in twin_of(network):
            x = layer(x)
            maps.append(x)
    for stage in range(4):
        expected = maps[2 * stage + 1]
        norm = network.get_submodule(f"norm{stage}")
        centred = expected - expected.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        scaled = scaled * norm.weight[:, None, None] + norm.bias[:, None, None]
        assert_close(outputs[f"p{stage}"], scaled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (20, 33), (67, 93), (64, 97)])
def test_forward__any_size_equals_that_of_the_image_with_zeros(size):
    network = build().eval()
    x = torch.randn(2, 3, *size)
    filled = torch.zeros(2, 3, *(-(-side // 32) * 32 for side in size))
    filled[..., : size[0], : size[1]] = x
    with torch.no_grad():
        outputs, expected = network(x), network(filled)
    for name, spec in network.output_shape().items():
        rows, columns = (-(-side // spec.stride) for side in size)
        assert outputs[name].shape == (2, spec.channels, rows, columns)
        assert_close(outputs[name], expected[name][..., :rows, :columns], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [-1, 0, 1, 3, 4])
def test_frozen_stages__are_frozen_with_the_convolutions_before_them(frozen):
    network = build(frozen_stages=frozen)
    stages = [str(i) for i in range(frozen)]
    for name, parameter in network.named_parameters():
        part, index = name.split(".")[:2]
        assert parameter.requires_grad == (part.startswith("norm") or index not in stages), name


def test_out_indices__maps_do_not_depend_on_the_others():
    network, x = build().eval(), torch.randn(2, 3, 67, 93)
    part = build(out_indices=(1, 0)).eval()
    part.load_state_dict({name: network.state_dict()[name] for name in part.state_dict()})
    with torch.no_grad():
        outputs, expected = part(x), network(x)
    for name in ("p0", "p1"):
        assert_close(outputs[name], expected[name], rtol=1e-5, atol=1e-5)


def test_frozen_stages__drop_no_path():
    network = build(drop_path_rate=0.9, frozen_stages=2).train()
    x = torch.randn(2, 3, 64, 64)
    first, second = network(x), network(x)
    assert_close(first["p1"], second["p1"], rtol=0, atol=0)
    assert not any(
        module.training
        for name in network.frozen_modules
        for module in network.get_submodule(name).modules()
    )
    assert network.stages[2][0].drop_path.training


@pytest.mark.parametrize("names", [["res2", "res3", "res4", "res5"], None])
def test_convnext__under_detectron2s_pyramid(names):
    """The pyramid's coarsest level is made of its own, whatever ours are called."""
    bottom_up = build(out_features=names)
    pyramid = FPN(bottom_up, list(bottom_up.output_shape()), 8, top_block=LastLevelMaxPool()).eval()
    with torch.no_grad():
        levels = pyramid(torch.randn(2, 3, 64, 128))
    assert {name: m.shape[-1] for name, m in levels.items()} == {
        name: 128 // spec.stride for name, spec in pyramid.output_shape().items()
    }
    assert_close(levels["p6"], levels["p5"][..., ::2, ::2], rtol=0, atol=0)


def test_block__without_a_scale():
    assert "gamma" not in dict(Block(4, layer_scale_init_value=0).named_parameters())
    assert Block(4, layer_scale_init_value=0.5).gamma.tolist() == [0.5] * 4


def test_init__convolutions_are_drawn_as_linear_layers_are():
    torch.manual_seed(0)
    for module in ConvNeXt(depths=[1, 1, 1, 1], dims=[64, 64, 64, 64]).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert not module.bias.any()


def test_grad_checkpointing__same_gradients():
    x = torch.randn(2, 3, 32, 64)
    gradients = []
    for checkpointing in (False, True):
        network = build(frozen_stages=1, grad_checkpointing=checkpointing).train()
        sum(m.square().sum() for m in network(x).values()).backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.requires_grad})
    assert "forward" in network.stages[1][0].__dict__
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"depths": [3, 3, 9]}, BackboneError, r"four integers .* as depths, got \[3, 3, 9\]"),
        ({"dims": 96}, TypeError, "a sequence of integers as dims, got 96"),
        ({"frozen_stages": 5}, BackboneError, "from -1 to 4 as frozen_stages, got 5"),
        ({"drop_path_rate": 2}, BackboneError, "from 0 to 1 as drop_path_rate, got 2"),
        ({"in_chans": 0}, BackboneError, "at least 1 as in_chans, got 0"),
        ({"layer_scale_init_value": None}, BackboneError, "as layer_scale_init_value, got None"),
        ({"grad_checkpointing": "yes"}, TypeError, "grad_checkpointing must be True or False"),
    ],
)
def test_convnext__refuses(wrong, error, message):
    with pytest.raises(error, match=message):
        ConvNeXt(**wrong)
