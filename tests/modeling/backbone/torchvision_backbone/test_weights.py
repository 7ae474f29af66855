import functools
import hashlib
import importlib

import pytest
import torch
import torchvision
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from detrex.errors import BackboneError
from detrex.modeling.backbone.torchvision_backbone.weights import (
    builder_keywords,
    first_weights,
    names,
    published_weights,
)

CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (True, ResNet50_Weights.IMAGENET1K_V2),
        ("DEFAULT", ResNet50_Weights.IMAGENET1K_V2),
        ("IMAGENET1K_V1", ResNet50_Weights.IMAGENET1K_V1),
        ("ResNet50_Weights.IMAGENET1K_V1", ResNet50_Weights.IMAGENET1K_V1),
        (ResNet50_Weights.IMAGENET1K_V2, ResNet50_Weights.IMAGENET1K_V2),
    ],
)
def test_published_weights__enums_and_their_names(weights, expected):
    place = published_weights(weights, "resnet50")
    assert place.info is expected
    assert place.addresses == (expected.url,)


@pytest.mark.parametrize("weights", ["IMAGENET1K_V3", "w.pth", 7])
def test_published_weights__others(weights):
    assert published_weights(weights, "resnet50") is None


def test_published_weights__enum_of_another_network():
    with pytest.raises(
        BackboneError, match=r"resnet50 has the weights IMAGENET1K_V1, .*got ResNet18"
    ):
        published_weights(ResNet18_Weights.DEFAULT, "resnet50")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_names__of_every_classifier(name):
    assert names(name)[-1] == "DEFAULT"
    assert published_weights(True, name).info is published_weights("DEFAULT", name).info


def test_published_weights__published_weights_by_their_file(tmp_path, monkeypatch):
    """A copy of torchvision's file, and its address, are the weights of the enum."""
    url = ResNet50_Weights.IMAGENET1K_V2.url
    assert published_weights(url, "resnet50").info is ResNet50_Weights.IMAGENET1K_V2
    content = b"weights"
    copy = tmp_path / f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    copy.write_bytes(content)
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V1.value, "url", f"https://a/{copy.name}")
    assert published_weights(copy, "resnet50").info is ResNet50_Weights.IMAGENET1K_V1
    copy.write_bytes(b"others, trained further")
    assert published_weights(copy, "resnet50") is None
    plain = tmp_path / "own.pth"  # an own network's address may carry no hash
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V1.value, "url", "https://a/own.pth")
    assert published_weights(plain, "resnet50") is None
    plain.write_bytes(content)
    assert published_weights(plain, "resnet50").info is ResNet50_Weights.IMAGENET1K_V1


def test_first_weights__oldest():
    assert first_weights("resnet50") is ResNet50_Weights.IMAGENET1K_V1


class AskedError(Exception):
    """A builder has come to the loading of its weights."""


def keywords_by_builder(model_name, member, monkeypatch):
    """Run torchvision's builder up to its loading, and see which keywords it sets."""
    builder = torchvision.models.get_model_builder(model_name)
    module = importlib.import_module(builder.__module__)
    plain, found = module._ovewrite_named_param, {}

    def note(kwargs, name, value):
        found[name] = value
        plain(kwargs, name, value)

    def stop(*_, **__):
        raise AskedError

    monkeypatch.setattr(module, "_ovewrite_named_param", note)
    monkeypatch.setattr(type(member), "get_state_dict", stop)
    # RegNet reads its widths from a tensor, which the meta device has no values for.
    with torch.device("meta"), pytest.raises((AskedError, NotImplementedError)):
        builder(weights=member)
    return found


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_builder_keywords__are_torchvisions(name, monkeypatch):
    # What the tensors show anyway: heads, and the widths that an architecture always has.
    anyway = {"num_classes", "aux_logits", "init_weights", "groups", "width_per_group"}
    for member in torchvision.models.get_model_weights(name):
        with monkeypatch.context() as patched:
            found = keywords_by_builder(name, member, patched)
        expected = {key: value for key, value in found.items() if key not in anyway}
        assert builder_keywords(member, name, 3, {}) == expected


def test_builder_keywords__the_users_stand_first():
    build = functools.partial(builder_keywords, torchvision.models.GoogLeNet_Weights.DEFAULT)
    assert build("googlenet", 3, {"transform_input": False}) == {"transform_input": False}
    assert build("googlenet", 4, {}) == {"transform_input": False}
    assert builder_keywords(None, "googlenet", 3, {"a": 1}) == {"a": 1}
