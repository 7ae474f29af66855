"""The backbone of the photographs' config gives the features of torchvision's file, frozen."""

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
def backbone(weights_file):
    node = load_config("configs/dino/demo_photographs.py").model.backbone
    node.weights = weights_file
    return instantiate(node).eval()


def test_features__are_those_of_the_file(backbone, weights_file):
    network = mobilenet_v2()
    network.load_state_dict(torch.load(weights_file))
    images = torch.randn(2, 3, 64, 96)
    features = network.eval().features[:7](images)
    torch.testing.assert_close(backbone(images)["res3"], features, rtol=1e-4, atol=1e-4)


def test_output_shape__is_what_the_neck_expects(backbone):
    neck = load_config("configs/dino/demo_photographs.py").model.neck
    shapes = backbone.output_shape()
    assert list(shapes) == list(neck.in_features)
    for name, shape in shapes.items():
        assert shape.channels == neck.input_shapes[name].channels


def test_norms__frozen(backbone):
    backbone.train()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in backbone.modules()) > 40
    assert any(p.requires_grad for p in backbone.parameters())
