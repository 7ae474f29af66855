import inspect

import pytest
import torchvision

from detrex.errors import BackboneError
from detrex.modeling.backbone import TorchvisionBackbone
from detrex.modeling.backbone.torchvision_backbone.builder import build_classifier, check_classifier


def test_build_classifier__is_torchvisions():
    network = build_classifier("resnet18", num_classes=7)
    assert type(network) is torchvision.models.ResNet
    assert network.fc.out_features == 7


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resnet5O", "no classifier named 'resnet5O'. Did you mean 'resnet50'"),
        ("qqqqqqqq", r"no classifier named 'qqqqqqqq'. See torchvision.models.list_models\(\)"),
        ("fasterrcnn_resnet50_fpn", "no classifier named 'fasterrcnn_resnet50_fpn'"),
    ],
)
def test_build_classifier__names_near_names(name, match):
    with pytest.raises(BackboneError, match=match):
        build_classifier(name)


def test_build_classifier__suggests_every_keyword_of_the_wrapper():
    own = {*inspect.signature(TorchvisionBackbone).parameters} - {"kwargs"}
    for keyword in own:
        misspelt = f"{keyword}s"
        with pytest.raises(TypeError, match=f"Did you mean.*'{keyword}'"):
            build_classifier("resnet18", **{misspelt: [3]})


@pytest.mark.parametrize("name", [None, 3, ["resnet18"]])
def test_check_classifier__is_a_text(name):
    with pytest.raises(TypeError, match="model_name must be a name such as 'resnet50', got"):
        check_classifier(name)


def test_build_classifier__names_near_keywords():
    with pytest.raises(TypeError, match=r"'num_clases'\. Did you mean 'num_classes'"):
        build_classifier("resnet18", num_clases=3)


def test_build_classifier__registered_by_the_user_and_again():
    for width in (16, 32):

        def net_of_the_users(width=width, **kwargs):
            return torchvision.models.resnet18(num_classes=width, **kwargs)

        torchvision.models._api.BUILTIN_MODELS.pop("net_of_the_users", None)
        torchvision.models._api.register_model()(net_of_the_users)
        try:
            assert build_classifier("net_of_the_users").fc.out_features == width
        finally:
            torchvision.models._api.BUILTIN_MODELS.pop("net_of_the_users")
