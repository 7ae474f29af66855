"""What is found by a look is held against timm itself on real tensors."""

import functools
import warnings

import pytest
import timm
import torch
from timm.models import register_model
from timm.models._builder import build_model_with_cfg
from timm.models.resnet import BasicBlock, ResNet

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.chosen_outputs import features_at
from detrex.modeling.backbone.timm_backbone.spec import inspect_network


@pytest.mark.parametrize(
    ("name", "keywords", "rule"),
    [
        ("test_resnet", {}, "images of any size"),
        ("test_convnext", {"in_chans": 5}, "images of any size"),
        (
            "vit_tiny_patch16_224",
            {"in_chans": 1, "depth": 2},
            "images are padded to multiples of 16, built with dynamic_img_size=True",
        ),
        ("test_vit", {"dynamic_img_size": True}, "images are padded to multiples of 16"),
        ("test_vit", {"dynamic_img_size": False}, "images are cut into tiles of 160 x 160"),
        (
            "test_vit",
            {"patch_size": 14, "img_size": (56, 42), "dynamic_img_size": False},
            "images are cut into tiles of 56 x 42",
        ),
        ("hrnet_w18_small", {}, "images are padded to multiples of 32"),
        ("levit_128s", {}, "images are cut into tiles of 224 x 224"),
    ],
)
def test_inspect_network__rule(name, keywords, rule):
    assert str(inspect_network(name, keywords).input_size) == rule


@pytest.mark.parametrize("name", ["test_resnet", "test_mambaout", "test_vit", "test_efficientnet"])
def test_inspect_network__features_are_those_of_timm(name):
    spec = inspect_network(name, {})
    network = timm.create_model(
        name, features_only=True, out_indices=tuple(range(len(spec.features)))
    ).eval()
    outputs = network(torch.randn(2, 3, *spec.example_size))
    info = network.feature_info
    assert [feature.channels for feature in spec.features] == info.channels()
    assert [feature.stride for feature in spec.features] == info.reduction()
    for feature, output in zip(spec.features, outputs, strict=True):
        assert feature.to_map(output, spec.example_size).shape[1] == feature.channels


def test_inspect_network__leave_the_random_state_alone_and_are_kept():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    spec = inspect_network("test_resnet", {"drop_path_rate": 0.125})
    assert torch.equal(torch.get_rng_state(), before)
    assert inspect_network("test_resnet", {"drop_path_rate": 0.125}) is spec


def test_inspect_network__feature_that_no_module_gives():
    spec = inspect_network("tresnet_m", {})
    assert [feature.source for feature in spec.features] == [1, 2, 3, 4]
    with pytest.raises(BackboneError, match=r"has the feature indices 1 \(stride 4\), 2"):
        features_at((0,), spec)
    assert features_at((-1, 1), spec) == [spec.features[3], spec.features[0]]


def registered(name, width):
    """Register a ResNet of one's own in timm, again where it is there."""

    def build(pretrained=False, **kwargs):
        widths = tuple(width * 2**stage for stage in range(4))
        more = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": widths}
        return build_model_with_cfg(ResNet, name, pretrained, **more, **kwargs)

    build.__name__, build.__module__ = name, __name__
    globals()[name] = build
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        register_model(build)


def test_inspect_network__of_a_network_registered_again_are_not_stale():
    for width in (16, 32):
        registered("net_of_the_users", width)
        spec = inspect_network("net_of_the_users", {})
        assert [feature.channels for feature in spec.features][1:] == [
            width,
            2 * width,
            4 * width,
            8 * width,
        ]


@pytest.mark.parametrize("as_partial", [False, True])
def test_inspect_network__of_an_object_among_the_keywords_are_not_stale(as_partial):
    class Block(BasicBlock):
        expansion = 1

    block = functools.partial(Block) if as_partial else Block
    if as_partial:
        block.expansion = 1
    before = inspect_network("resnet18", {"block": block})
    Block.expansion = block.expansion = 2
    after = inspect_network("resnet18", {"block": block})
    assert [t.channels * 2 for t in before.features[1:]] == [t.channels for t in after.features[1:]]


@pytest.mark.parametrize(
    ("first", "second"),
    [({"in_chans": 1}, {"in_chans": 3}), ({"drop_rate": 1}, {"drop_rate": True})],
)
def test_inspect_network__are_kept_by_value_and_type(first, second):
    assert inspect_network("test_resnet", first) is inspect_network("test_resnet", dict(first))
    assert inspect_network("test_resnet", first) is not inspect_network("test_resnet", second)


def test_inspect_network__fault_that_is_no_refusal_is_told(monkeypatch):
    def forward(self, x):
        raise KeyError("colour")

    monkeypatch.setattr("timm.models._features.FeatureListNet.forward", forward)
    with pytest.raises(BackboneError, match=r"failed in a trial run .* KeyError: 'colour'"):
        inspect_network("test_resnet", {"drop_rate": 0.03125})


def test_inspect_network__of_a_function_that_builds_another_network_are_not_stale():
    widths = [16]

    def build(pretrained=False, **kwargs):
        more = {"layers": (1, 1, 1, 1), "channels": tuple(widths[-1] * 2**i for i in range(4))}
        more |= {"block": BasicBlock, **kwargs}
        return build_model_with_cfg(ResNet, "changing", pretrained, **more)

    build.__name__, build.__module__ = "changing", __name__
    globals()["changing"] = build
    register_model(build)
    before = inspect_network("changing", {})
    widths.append(32)
    after = inspect_network("changing", {})
    assert [2 * feature.channels for feature in before.features[1:]] == [
        t.channels for t in after.features[1:]
    ]
