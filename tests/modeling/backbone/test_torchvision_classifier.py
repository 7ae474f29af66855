from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from detrex.errors import BackboneError
from detrex.modeling.backbone.torchvision_classifier import create_classifier


@pytest.fixture
def asked_for(monkeypatch):
    """Instead of downloading, write down the weights that a builder was given."""
    seen = []

    def builder(weights=None):
        seen.append(weights)
        return torch.nn.Identity()

    monkeypatch.setattr(torchvision.models, "get_model_builder", lambda name: builder)
    return seen


@pytest.mark.parametrize(
    ("pretrained", "weights", "expected"),
    [
        (False, None, None),
        (True, None, ResNet50_Weights.IMAGENET1K_V1),
        (False, "IMAGENET1K_V2", ResNet50_Weights.IMAGENET1K_V2),
        (False, "ResNet50_Weights.IMAGENET1K_V1", ResNet50_Weights.IMAGENET1K_V1),
        (False, "DEFAULT", ResNet50_Weights.IMAGENET1K_V2),
        (False, ResNet50_Weights.IMAGENET1K_V2, ResNet50_Weights.IMAGENET1K_V2),
    ],
)
def test_create_classifier__knows_enums_and_their_names(asked_for, pretrained, weights, expected):
    _, file = create_classifier("resnet50", pretrained, weights)
    assert asked_for == [expected]
    assert file is None


@pytest.mark.parametrize("weights", ["a/weights.pth", Path("a/weights.pth")])
def test_create_classifier__leaves_a_file_to_its_caller(weights):
    _, file = create_classifier("resnet18", weights=weights)
    assert file == Path("a/weights.pth")


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("resnet5O", {}, "no classifier named 'resnet5O'. Did you mean 'resnet50'"),
        ("qqqqqqqq", {}, r"no classifier named 'qqqqqqqq'. See torchvision.models.list_models\(\)"),
        (
            "resnet18",
            {"weights": "IMAGENET1K_V2"},
            "has the weights IMAGENET1K_V1, DEFAULT, got 'IMAGENET1K_V2'.*Did you mean",
        ),
        ("resnet50", {"weights": ResNet18_Weights.DEFAULT}, "resnet50 has the weights"),
        ("resnet18", {"pretrained": True, "weights": "DEFAULT"}, "leave one of them out"),
    ],
)
def test_create_classifier__explains_what_there_is_not(name, options, match):
    with pytest.raises(BackboneError, match=match):
        create_classifier(name, **options)


def test_create_classifier__names_near_keywords():
    with pytest.raises(TypeError, match=r"'num_clases'\. Did you mean 'num_classes'"):
        create_classifier("resnet18", num_clases=3)


def test_create_classifier__says_what_to_do_without_a_network(monkeypatch):
    def builder(weights=None):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models, "get_model_builder", lambda name: builder)
    with pytest.raises(BackboneError, match=r"could not be fetched .*local file as weights"):
        create_classifier("resnet18", pretrained=True)
