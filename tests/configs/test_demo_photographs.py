"""The two configs of the photographs differ in their backbone's library, not in its features."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torchvision.models import mobilenet_v2

from detrex.config import load_config


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A file as torchvision publishes it, with random weights and statistics."""
    generator = torch.Generator().manual_seed(0)
    network = mobilenet_v2()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def backbones(weights_file):
    """The backbone of either config from the same file: torchvision's, then timm's."""
    torchvision = load_config("configs/dino/demo_photographs.py").model.backbone
    timm = load_config("configs/dino/demo_photographs_timm.py").model.backbone
    torchvision.weights = timm.checkpoint_path = weights_file
    return instantiate(torchvision).eval(), instantiate(timm).eval()


@pytest.mark.parametrize("gradient", [False, True])
def test_features__equal_from_either_library(backbones, gradient):
    images = torch.randn(2, 3, 96, 128)
    with torch.set_grad_enabled(gradient):
        from_torchvision, from_timm = (backbone(images) for backbone in backbones)
    assert list(from_torchvision) == list(from_timm) == ["p2", "p3", "p4"]
    for name in from_timm:
        torch.testing.assert_close(from_torchvision[name], from_timm[name], rtol=1e-5, atol=1e-5)


def test_features__are_those_of_the_file(backbones, weights_file):
    network = mobilenet_v2()
    network.load_state_dict(torch.load(weights_file))
    images = torch.randn(2, 3, 64, 96)
    features = network.eval().features[:7](images)
    torch.testing.assert_close(backbones[0](images)["p2"], features, rtol=1e-4, atol=1e-4)


def test_output_shape__is_what_the_neck_expects(backbones):
    neck = load_config("configs/dino/demo_photographs.py").model.neck
    for backbone in backbones:
        shapes = backbone.output_shape()
        assert list(shapes) == list(neck.in_features)
        for name, shape in shapes.items():
            assert shape.channels == neck.input_shapes[name].channels


def test_norms__frozen_alike(backbones):
    for backbone in backbones:
        backbone.train()
        assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
        assert sum(isinstance(m, FrozenBatchNorm2d) for m in backbone.modules()) > 40
    trained = [sum(p.numel() for p in b.parameters() if p.requires_grad) for b in backbones]
    assert trained[0] == trained[1] > 0
