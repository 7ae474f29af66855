import pytest
import torchvision
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from detrex.errors import BackboneError
from detrex.modeling.backbone.torchvision_weights import find, names


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
def test_find__enums_and_their_names(weights, expected):
    place = find(weights, "resnet50")
    assert place.member is expected
    assert place.addresses == (expected.url,)


@pytest.mark.parametrize("weights", ["IMAGENET1K_V3", "w.pth", 7])
def test_find__others(weights):
    assert find(weights, "resnet50") is None


def test_find__enum_of_another_network():
    with pytest.raises(
        BackboneError, match=r"resnet50 has the weights IMAGENET1K_V1, .*got ResNet18"
    ):
        find(ResNet18_Weights.DEFAULT, "resnet50")


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_names__of_every_classifier(name):
    assert names(name)[-1] == "DEFAULT"
    assert find(True, name).member is find("DEFAULT", name).member
