"""Networks of transformers: their maps beside transformers' own, weights, sizes and training."""

import copy
import logging
import re
import sys

import pytest
import torch
import transformers
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone import HuggingFaceBackbone
from detrex.modeling.backbone.huggingface_backbone.builder import recipe_of
from detrex.modeling.backbone.huggingface_backbone.naming import named_network
from detrex.modeling.backbone.huggingface_backbone.spec import inspect_network
from detrex.modeling.pixel_statistics import IMAGENET
from tests.reference.tiny_transformers import (
    MORE_TYPES,
    RESNET,
    SMALL_VIT,
    TYPES,
    VIT,
    built_by_transformers,
    maps_by_transformers,
)
from tests.reference.versions import since

TALL = (2, 3, 45, 71)


def spec_of(kind, keywords):
    return inspect_network(recipe_of(named_network(kind), keywords, 3))


@pytest.fixture(scope="module")
def built():
    """Backbones with all their maps, by type."""
    found = {}

    def build(kind):
        if kind not in found:
            places = [int(f.source) for f in spec_of(kind, TYPES[kind]).features]
            found[kind] = HuggingFaceBackbone(kind, out_indices=places, **TYPES[kind]).eval()
        return found[kind]

    return build


def check_like_transformers(backbone, kind, keywords):
    """Equal maps on a size that both take, from equal weights."""
    theirs = built_by_transformers(kind, keywords)
    ours = backbone.hf_model.model
    ours.load_state_dict(
        {name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()}
    )
    size = keywords.get("image_size", 64)
    sides = (size, size) if isinstance(size, int) else size
    if backbone.input_size.tile is None:
        step = backbone.input_size.coverage.padded(1, backbone.input_size.multiple)
        sides = (4 * step, 3 * step) if step > 1 else (64, 96)
    images = torch.randn(2, 3, *sides)
    with torch.no_grad():
        expected = maps_by_transformers(theirs, images)
        found = backbone(images)
    places = {
        name: int(feature.source) for name, feature in zip(found, backbone._maps, strict=True)
    }
    assert places
    for name, place in places.items():
        assert_close(found[name], expected[place], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_backbone__gives_the_maps_of_transformers(kind, built):
    check_like_transformers(copy.deepcopy(built(kind)), kind, TYPES[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", MORE_TYPES)
def test_backbone__of_any_type(kind):
    keywords = MORE_TYPES[kind]
    backbone = HuggingFaceBackbone(kind, **keywords)
    sources = [int(feature.source) for feature in backbone.spec.features]
    check_sizes(backbone)
    sum(level.sum() for level in backbone.train()(torch.randn(TALL)).values()).backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    with_all = HuggingFaceBackbone(kind, out_indices=sources, **keywords).eval()
    check_like_transformers(with_all, kind, keywords)


def check_sizes(backbone):
    with torch.no_grad():
        found = backbone(torch.randn(TALL))
    for name, stride in backbone.features.strides.items():
        assert found[name].shape[-2:] == tuple(-(-side // stride) for side in TALL[-2:])
        assert found[name].isfinite().all()


@pytest.mark.parametrize("kind", TYPES)
def test_backbone__takes_any_size(kind, built):
    check_sizes(built(kind))


def test_backbone__leaves_out_what_no_output_needs():
    whole = HuggingFaceBackbone("vit", out_strides=(16,), **SMALL_VIT)
    names = whole.state_dict()
    assert not any("pooler" in name or "mask_token" in name for name in names)
    early = HuggingFaceBackbone("vit", out_indices=[1], **SMALL_VIT)
    names = early.state_dict()
    blocks = {found[1] for name in names if (found := re.search(r"\.layers?\.(\d+)\.", name))}
    assert blocks == {"0"}
    assert not any(".layernorm." in name for name in names)
    assert all(p.requires_grad for p in early.parameters())
    stages = HuggingFaceBackbone("resnet", out_features=["stage2", "stage1"], **RESNET)
    assert stages.features.strides == {"stage2": 8, "stage1": 4}
    assert not any("stages.2" in name for name in stages.state_dict())


@pytest.mark.parametrize("kind", ["vit", "swin", "resnet", "dinov3_vit"])
def test_backbone__of_a_folder_is_from_pretrained(kind, tmp_path):
    theirs = built_by_transformers(kind, TYPES[kind])
    theirs.save_pretrained(tmp_path)
    expected = type(theirs).from_pretrained(tmp_path).state_dict()
    backbone = HuggingFaceBackbone(str(tmp_path), weights=True)
    found = backbone.hf_model.model.state_dict()
    assert len(found) > 20
    for name, value in found.items():
        assert_close(value, expected[name], rtol=0, atol=0)


def test_backbone__of_another_number_of_channels_adapts_its_kernel(tmp_path):
    built_by_transformers("vit", SMALL_VIT).save_pretrained(tmp_path)
    colour = HuggingFaceBackbone(tmp_path, weights=True)
    grey = HuggingFaceBackbone(tmp_path, weights=True, in_channels=1)
    name = "embeddings.patch_embeddings.projection.weight"
    kernel = colour.hf_model.model.get_parameter(name).sum(1, keepdim=True)
    assert_close(grey.hf_model.model.get_parameter(name), kernel)
    assert grey.preprocess == IMAGENET.with_channels(1)
    assert grey(torch.randn(1, 1, 40, 50))["res4"].shape[-2:] == (3, 4)


def test_backbone__says_when_weights_are_there_and_not_taken(tmp_path, caplog):
    built_by_transformers("resnet", RESNET).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        HuggingFaceBackbone(tmp_path)
    assert "starts from random values: weights=True gives it its own" in caplog.text
    caplog.clear()
    HuggingFaceBackbone("resnet", **RESNET)
    assert "random" not in caplog.text


def test_backbone__of_a_config_is_that_of_its_type():
    keywords = VIT | {"drop_path_rate": 0.25}
    torch.manual_seed(0)
    by_type = HuggingFaceBackbone("dinov2", **keywords)
    torch.manual_seed(0)
    by_config = HuggingFaceBackbone(transformers.Dinov2Config(**VIT), drop_path_rate=0.25)
    assert by_config.hf_model.model.config.drop_path_rate == 0.25
    for name, value in by_type.state_dict().items():
        assert_close(by_config.state_dict()[name], value, rtol=0, atol=0)


def test_backbone__computes_blocks_again_to_the_same_gradients():
    plain, checkpointed = (
        HuggingFaceBackbone("vit", grad_checkpointing=is_on, **SMALL_VIT) for is_on in (False, True)
    )
    checkpointed.load_state_dict(plain.state_dict())
    wrapped = [m for m in checkpointed.modules() if "forward" in vars(m)]
    assert len(wrapped) == SMALL_VIT["num_hidden_layers"]
    images = torch.randn(TALL)
    for backbone in (plain, checkpointed):
        sum(level.square().sum() for level in backbone.train()(images).values()).backward()
    for ours, theirs in zip(checkpointed.parameters(), plain.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


@since("torch", 2, 7, reason="torch 2.6 cannot follow what transformers puts around a forward")
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_backbone__can_be_exported(kind, built):
    backbone, images = built(kind), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = backbone(images)
        found = torch.export.export(backbone, (images,)).module()(images)
    for name, level in expected.items():
        assert_close(found[name], level, rtol=1e-5, atol=1e-5)


def test_backbone__needs_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install transformers"):
        HuggingFaceBackbone("vit")


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"out_features": ["stage2"], "out_strides": (8,)}, "are stages of .* leave these out"),
        ({"out_features": ["res7"]}, "gives the levels"),
        ({"out_indices": [9]}, "has the feature indices"),
        ({"norm_layer": "GN"}, "is built with its own norms"),
        ({"weights": True}, "is a type of networks and has no weights of its own"),
    ],
)
def test_backbone__says_what_is_wrong(keywords, match):
    with pytest.raises(BackboneError, match=match):
        HuggingFaceBackbone("resnet", **RESNET, **keywords)
