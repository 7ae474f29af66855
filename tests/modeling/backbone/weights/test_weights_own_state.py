"""A backbone's own state, wherever it stands in a file, restores it to the last bit."""

import logging

import pytest
import timm
import torch
import torchvision
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import nn

from detrex.checkpoint import load_init_checkpoint
from detrex.errors import CheckpointError
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone, TorchvisionResNet

STRIDES = (4, 8, 16, 32)
KINDS = {
    "plain": (TimmBackbone, "vit_tiny_patch16_224", {"depth": 2, "out_strides": STRIDES}),
    "two networks": (TimmBackbone, "test_convnext", {"out_indices": (1, 2)}),
    "frozen": (TimmBackbone, "test_resnet", {"out_strides": STRIDES, "frozen_norm": True}),
    "graph": (TorchvisionBackbone, "resnet18", {"out_strides": STRIDES}),
    "nodes": (TorchvisionBackbone, "resnet18", {"return_nodes": {"layer2.0.relu": "x"}}),
    "bands": (TimmBackbone, "test_resnet", {"out_strides": STRIDES, "in_channels": 4}),
}


def built(kind, seed, **options):
    torch.manual_seed(seed)
    cls, name, keywords = KINDS[kind]
    backbone = cls(name, **keywords, **options)
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            if tensor.is_floating_point() and not options:
                tensor.add_(torch.rand_like(tensor))
    return backbone


def assert_equal(backbone, source):
    expected = source.state_dict()
    assert backbone.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_weights__own_state(tmp_path, kind, caplog):
    source = built(kind, 0)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert_equal(built(kind, 1, weights=tmp_path / "w.pth"), source)
    assert "left as they were" not in caplog.text


@pytest.mark.parametrize(
    "prefix",
    [
        "backbone.",
        "backbone.bottom_up.",
        "backbone.net.",
        "module.",
        "module.backbone.",
        "_orig_mod.module.backbone.",
        "model.backbone._orig_mod.",
    ],
)
def test_weights__own_state_in_a_detector(prefix, caplog):
    kind = "graph" if prefix == "module.backbone." else "plain"
    source = built(kind, 0)
    heads = {"module.": "", "backbone.bottom_up.": "backbone.fpn_lateral2."}.get(prefix, "head.")
    content = {prefix + name: value for name, value in source.state_dict().items()}
    content |= {f"{heads}{i}.weight": torch.zeros(3) for i in range(5)}
    assert_equal(built(kind, 1, weights={"model": content, "iteration": 3}), source)
    assert "left as they were" not in caplog.text


def test_weights__own_state_with_a_compiled_network():
    source = built("plain", 0)
    file = {
        name.replace("timm_model.", "timm_model._orig_mod."): value
        for name, value in source.state_dict().items()
    }
    assert_equal(built("plain", 1, weights=file), source)


def test_weights__both_copies_of_the_original():
    """The original's state holds torchvision's network twice."""
    source = built("nodes", 0)
    whole = torchvision.models.resnet18().state_dict()
    inner = {n.removeprefix("feature_extractor."): v for n, v in source.state_dict().items()}
    file = {f"model.{name}": inner.get(name, value) for name, value in whole.items()}
    file |= {f"feature_extractor.{name}": value for name, value in inner.items()}
    assert_equal(built("nodes", 1, weights=file), source)


def test_weights__of_a_detector_with_a_neck():
    source = built("plain", 0)
    neck = FPN(source, list(source.output_shape()), 64, top_block=LastLevelMaxPool())
    file = {f"backbone.{name}": value for name, value in neck.state_dict().items()}
    assert_equal(built("plain", 1, weights=file), source)


def test_weights__a_plain_network_leaves_the_pyramid_new(caplog):
    file = timm.create_model("vit_tiny_patch16_224", depth=2).state_dict()
    with caplog.at_level(logging.INFO):
        backbone = built("plain", 0, weights=file)
    count = len(backbone.pyramid.state_dict())
    assert (
        f"is of the network alone: the {count} tensors of the pyramid start afresh" in caplog.text
    )
    assert "left as they were" not in caplog.text
    state = backbone.timm_model.model.state_dict()
    assert all(torch.equal(state[name], file[name]) for name in state)


def test_weights__a_part_of_the_pyramid_is_named(caplog):
    source = built("plain", 0).state_dict()
    lost = [name for name in source if name.startswith("pyramid.")][:2]
    built("plain", 1, weights={n: v for n, v in source.items() if n not in lost})
    assert f"left as they were: {lost[0]!r}, {lost[1]!r} (network: 0, " in caplog.text
    assert "pyramid: 2)" in caplog.text


@pytest.mark.parametrize("lost", ["conv1.weight", "timm_model.conv1.weight"])
def test_weights__random_input_layer_is_an_error(lost):
    prefix = lost.removesuffix("conv1.weight")
    source = {prefix + n: v for n, v in timm.create_model("resnet18").state_dict().items()}
    source.pop(lost)
    with pytest.raises(CheckpointError, match=r"no value for 'timm_model.conv1.weight', the layer"):
        TimmBackbone("resnet18", out_strides=STRIDES, weights=source)


@pytest.mark.parametrize(("theirs", "ours"), [(4, 3), (13, 12), (2, 5)])
@pytest.mark.parametrize("cls", [TimmBackbone, TorchvisionBackbone])
def test_weights__other_bands_are_an_error(theirs, ours, cls):
    file = timm.create_model("resnet18", in_chans=theirs).state_dict()
    with pytest.raises(
        CheckpointError,
        match=rf"for images of {theirs} channels .* takes {ours}.*in_channels={theirs}",
    ) as error:
        cls("resnet18", out_strides=STRIDES, in_channels=ours, weights=file)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("theirs", "ours"), [(3, 12), (1, 3), (1, 12), (4, 1), (3, 1)])
def test_weights__bands_are_adapted(theirs, ours):
    """Equal channels give what they gave, where one number is a multiple of the other."""
    file = timm.create_model("resnet18", in_chans=theirs)
    options = {"out_strides": (8,), "in_channels": ours}
    backbone = TimmBackbone("resnet18", weights=file.state_dict(), **options)
    grey = torch.randn(2, 1, 32, 32)
    got = backbone.timm_model.conv1(grey.expand(-1, ours, -1, -1))
    expected = file.conv1(grey.expand(-1, theirs, -1, -1))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_weights__in_another_wrapper_of_the_same_names():
    source = torchvision.models.resnet18().state_dict()
    body = TorchvisionResNet("resnet18", True, weights=source).body.state_dict()
    assert all(torch.equal(value, source[name]) for name, value in body.items())


def test_load_init_checkpoint__pyramid_of_a_plain_file_counts_for_nothing(caplog):
    """A small network under a wide pyramid starts from its own file."""

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = built("plain", 0)

    file = timm.create_model("vit_tiny_patch16_224", depth=2).state_dict()
    report = load_init_checkpoint(Detector(), file)
    assert report.share == 1
    assert report.is_plain
