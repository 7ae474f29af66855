import pytest
import timm
import torchvision
from omegaconf import OmegaConf
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.wrapper.library_builder import build_with


def resnet18(**keywords):
    return build_with("net", torchvision.models.resnet18, keywords, torchvision.models.resnet18)


def test_build_with__returns_the_network():
    assert isinstance(resnet18(num_classes=3), nn.Module)


def test_build_with__hands_over_plain_lists():
    keywords = OmegaConf.create({"sizes": [3, 5], "options": {"a": [7]}})
    given = {}
    build_with("net", lambda **k: given.update(k), {n: keywords[n] for n in keywords}, resnet18)
    assert (type(given["sizes"]), type(given["options"]["a"])) == (list, list)


def test_build_with__names_near_keywords():
    with pytest.raises(TypeError, match=r"'num_clases'\. Did you mean 'num_classes'"):
        resnet18(num_clases=3)


def test_build_with__lists_keywords_when_none_is_near():
    with pytest.raises(TypeError, match=r"'zzz'\. It takes .*num_classes"):
        resnet18(zzz=3)


def test_build_with__a_list_of_keywords_is_short():
    with pytest.raises(TypeError, match=r"'zzz'\. It takes .*in_chans, .* more\.$") as error:
        build_with("net", timm.models.ResNet, {"zzz": 3}, timm.models.resnet18, "abcdefgh")
    assert len(str(error.value)) < 500


def test_build_with__explains_a_keyword_that_is_not_the_users():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()

    with pytest.raises(BackboneError, match=r"could not be built with norm_layer=.*positional"):
        resnet18(norm_layer=Norm)


@pytest.mark.parametrize(
    "error", [KeyError, AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError]
)
def test_build_with__other_errors_are_one_sentence(error):
    def build(act_layer):
        raise error(f"{act_layer}\nand more")

    with pytest.raises(BackboneError, match=rf"act_layer='rellu' \({error.__name__}: ") as told:
        build_with("net", build, {"act_layer": "rellu"}, resnet18)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500
