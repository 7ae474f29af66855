"""Arguments that are wrong get one sentence, and nothing is built."""

import pytest
import torch

from detrex.errors import BackboneError
from detrex.modeling.backbone import HuggingFaceBackbone, TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.arguments import check_in_channels, one_way_to_weights


@pytest.mark.parametrize("in_channels", [0, -1, 3.0, True, "3", None])
def test_check_in_channels(in_channels):
    with pytest.raises(BackboneError, match=f"a positive integer, got {in_channels!r}"):
        check_in_channels(in_channels)


def test_check_in_channels__has_no_upper_limit():
    check_in_channels(13)
    outputs = TimmBackbone("test_resnet", in_channels=13).eval()(torch.randn(1, 13, 64, 64))
    assert outputs["p3"].shape[2:] == (4, 4)


@pytest.mark.parametrize("wrapper", [TimmBackbone, TorchvisionBackbone])
def test_check_in_channels__keyword_of_timm(wrapper):
    with pytest.raises(BackboneError, match=r"got in_chans=4: .* called in_channels here"):
        wrapper("resnet18", in_chans=4)


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, float("nan")])
@pytest.mark.parametrize(
    ("wrapper", "name", "keyword"),
    [
        (TimmBackbone, "convnext_atto", "drop_path_rate"),
        (TorchvisionBackbone, "convnext_tiny", "stochastic_depth_prob"),
        (HuggingFaceBackbone, "convnext", "drop_path_rate"),
    ],
)
def test_check_drop_path(wrapper, name, keyword, rate):
    with pytest.raises(BackboneError, match=f"{keyword} must be from 0 to below 1, got {rate}"):
        wrapper(name, **{keyword: rate})


def test_one_way_to_weights__one_way_only():
    assert one_way_to_weights(pretrained=False, weights=None) is None
    assert one_way_to_weights(pretrained=True, checkpoint_path="", weights=None) is True
    assert one_way_to_weights(pretrained=True, checkpoint_path="a.pth") == "a.pth"
    with pytest.raises(BackboneError, match=r"got pretrained=True and weights='a1_in1k': say once"):
        one_way_to_weights(pretrained=True, weights="a1_in1k")
    with pytest.raises(TypeError, match="pretrained must be True or False"):
        one_way_to_weights(pretrained="a.pth")


@pytest.mark.parametrize("value", ["no", 1, None])
@pytest.mark.parametrize("name", ["frozen_norm", "grad_checkpointing"])
@pytest.mark.parametrize("wrapper", [TimmBackbone, TorchvisionBackbone])
def test_check_switches__a_text_is_not_on(wrapper, name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got {value!r}"):
        wrapper("resnet18", out_strides=(8,), **{name: value})
