"""What a classifier of torchvision gives and needs, seen without data."""

import pytest
import torch
import torchvision

from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.torchvision_backbone.nodes import (
    cut_at,
)
from detrex.modeling.backbone.torchvision_backbone.spec import describe_maps, inspect_network


def classifier(name, **kwargs):
    return torchvision.models.get_model(name, weights=None, **kwargs).eval()


def last_of_each_stride(spec):
    return {node.stride: node.source for node in spec.features}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {2: "relu", 4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}),
        (
            "mobilenet_v2",
            {
                2: "features.1",
                4: "features.3",
                8: "features.6",
                16: "features.13",
                32: "features.18",
            },
        ),
        ("swin_t", {4: "features.1", 8: "features.3", 16: "features.5", 32: "permute"}),
        ("convnext_tiny", {4: "features.1", 8: "features.3", 16: "features.5", 32: "features.7"}),
        ("squeezenet1_1", {2: "features.1", 4: "features.4", 8: "features.7", 16: "features.12"}),
        ("alexnet", {4: "features.1", 8: "features.4", 16: "features.11", 32: "features.12"}),
    ],
)
def test_inspect_network__last_of_each_stride(name, expected):
    spec = inspect_network(classifier(name), name)
    assert last_of_each_stride(spec) == expected
    assert spec.input_size == InputSize()


def test_inspect_network__plain_network_takes_one_size():
    network = classifier("vit_b_32", image_size=96)
    spec = inspect_network(network, "vit_b_32")
    assert spec.input_size.tile == spec.example_size == (96, 96)
    assert spec.features[-1] == FeatureInfo("encoder", "encoder", 768, 32, "NLC", 1)


def test_inspect_network__are_true_on_real_tensors():
    network = classifier("densenet121")
    spec = inspect_network(network, "densenet121")
    seen = {}
    for node in spec.features:
        network.get_submodule(node.source).register_forward_hook(
            lambda _module, _inputs, output, node=node: seen.setdefault(node.source, output)
        )
    network(torch.randn(2, 3, 64, 96))
    assert last_of_each_stride(spec)[8] == "features.denseblock2"
    for node in spec.features:
        cells = (64 // node.stride, 96 // node.stride)
        assert seen[node.source].shape == (2, node.channels, *cells)


def test_describe_maps__in_the_order_of_the_network():
    nodes = {"layer3": "res4", "layer1": "res2"}
    network = classifier("resnet18")
    extractor = cut_at("resnet18", network, (nodes, nodes), None, False)
    maps = describe_maps(extractor, inspect_network(network, "resnet18"), (nodes, nodes))
    described = [(f.name, f.source, f.channels, f.stride) for f in maps]
    assert described == [("res2", "layer1", 64, 4), ("res4", "layer3", 256, 16)]
