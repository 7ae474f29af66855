import pytest

from detrex.errors import BackboneError, CheckpointError
from detrex.project.backbones import choose


@pytest.mark.parametrize(
    ("name", "library", "wrapper"),
    [
        ("resnet50", "timm", "TimmBackbone"),
        ("resnet50.a1_in1k", "timm", "TimmBackbone"),
        ("timm/resnet50", "timm", "TimmBackbone"),
        ("torchvision/resnet50", "torchvision", "TorchvisionBackbone"),
        ("shufflenet_v2_x1_0", "torchvision", "TorchvisionBackbone"),
    ],
)
def test_choose__finds_the_library(name, library, wrapper):
    choice = choose(name)
    assert (choice.entry.library, choice.entry.wrapper) == (library, wrapper)
    assert choice.name == name.rpartition("/")[2]
    assert choice.weights is True


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet5O", "Did you mean 'resnet50'"),
        ("qqqqqqqq", "`detrex backbones` searches them"),
        ("resnet50.a9_in1k", "has no weights 'a9_in1k'. Did you mean"),
        ("mmdet/resnet50", "not timm or torchvision"),
        ("torchvision/resnet50d", "Did you mean 'resnet50'"),
    ],
)
def test_choose__unknown_name(name, told):
    with pytest.raises(BackboneError, match=told):
        choose(name)


def test_choose__weights(tmp_path):
    file = tmp_path / "w.pth"
    file.touch()
    assert choose("resnet50", "none").weights is None
    assert choose("resnet50", str(file)).weights == str(file)
    assert choose("resnet50", f"{file}#teacher").weights == f"{file}#teacher"
    assert choose("resnet50", "hf-hub:owner/name").weights == "hf-hub:owner/name"
    with pytest.raises(CheckpointError, match=r"no file of weights 'gone\.pth'"):
        choose("resnet50", "gone.pth")


def test_arguments__frozen_parts_only_with_weights():
    assert choose("resnet50").arguments(2) == {
        "model_name": "resnet50",
        "weights": True,
        "frozen_norm": True,
        "freeze_at": 2,
    }
    assert choose("resnet50", "none").arguments(2) == {"model_name": "resnet50", "weights": None}
    assert "frozen_norm" not in choose("convnext_tiny").arguments(1)


def test_told__says_what_happens_without_a_connection():
    assert "without a connection" in choose("resnet50").told()
    assert choose("resnet50", "none").told().startswith("none")
