import pytest
from detectron2.config import LazyCall as L
from detectron2.modeling import SwinTransformer, ViT
from torch import nn

from detrex.config.building import build_on_meta, build_part, first_line
from detrex.errors import BackboneError, ConfigError
from detrex.modeling.backbone import TorchvisionBackbone


def refuse(error):
    raise error


def test_build_part__gives_what_the_call_gives():
    assert build_part(L(nn.Linear)(in_features=3, out_features=5), "model").weight.shape == (5, 3)


def test_build_part__says_what_and_where():
    call = L(nn.GroupNorm)(num_groups=3, num_channels=7)
    message = r"^model\.norm cannot be built: ValueError: num_.* \(normalization\.py, line \d+\)\.$"
    with pytest.raises(ConfigError, match=message) as info:
        build_part(call, "model.norm")
    assert isinstance(info.value.__cause__, ValueError)


def test_build_part__own_errors_stay():
    with pytest.raises(BackboneError, match=r"^mine$"):
        build_part(L(refuse)(error=BackboneError("mine")), "model")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("a\nb"), "KeyError: 'a\\nb'"),
        (ValueError("\n x.\ny"), "ValueError: x"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_first_line__one_line(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(
    "call",
    [
        L(TorchvisionBackbone)(model_name="regnet_x_400mf", out_strides=(8,)),
        L(SwinTransformer)(depths=[1, 1], num_heads=[1, 1], embed_dim=8, out_indices=[0, 1]),
        L(ViT)(img_size=32, depth=2, embed_dim=8, num_heads=2, drop_path_rate=0.1),
    ],
)
def test_build_on_meta__network_that_computes_in_its_constructor(call):
    assert all(parameter.is_meta for parameter in build_on_meta(call).parameters())
