"""Where timm has its weights, and how it renames its authors' files."""

import pytest
import timm
import torch

from detrex.errors import BackboneError
from detrex.modeling.backbone.timm_weights import (
    default_place,
    tagged_place,
    tags,
    translate,
)


def test_tags__default_first():
    assert tags("resnet50")[0] == timm.get_pretrained_cfg("resnet50").tag
    assert set(tags("resnet50")) == {
        name.partition(".")[2] for name in timm.list_pretrained("resnet50.*")
    }
    assert tags("resnet50.tv_in1k") == tags("resnet50")
    assert tags("hf-hub:owner/name") == []


def test_default_place__hub_then_address():
    place = default_place("resnet50")
    config = timm.get_pretrained_cfg("resnet50")
    assert place.addresses == (f"hf-hub:{config.hf_hub_id}", config.url)
    assert place.pretrained_cfg == config.to_dict()
    assert default_place("resnet50.tv_in1k") == tagged_place("resnet50.a1_in1k", "tv_in1k")


def test_default_place__no_files_of_jax():
    place = default_place("vit_base_patch16_224.augreg_in21k")
    assert all(not address.endswith(".npz") for address in place.addresses)
    assert place.addresses


def test_default_place__network_that_describes_itself():
    network = torch.nn.Identity()
    network.pretrained_cfg = {
        "hf_hub_id": "owner/name",
        "hf_hub_filename": "w.bin",
        "file": "a.pth",
    }
    place = default_place("hf-hub:owner/name", network)
    assert place.addresses == ("a.pth", "hf-hub:owner/name/w.bin")


def test_default_place__no_weights():
    bare = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(BackboneError, match=rf"no default weights for '{bare}' \(tags .*: none\)"):
        default_place(bare)
    with pytest.raises(BackboneError, match=r"no default weights for 'hf-hub:owner/name' .*: give"):
        default_place("hf-hub:owner/name", torch.nn.Identity())


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "hf-hub:owner/name"])
def test_translate__nothing_to_rename(name):
    tensors = {"a": torch.zeros(1)}
    assert translate(name, tensors) is tensors


def renamed(name, rename):
    """Translate a network's tensors under their authors' names; give both."""
    with torch.device("meta"):
        network = timm.create_model(name)
    ours = {key: torch.zeros(value.shape) for key, value in network.state_dict().items()}
    return translate(name, {rename(key): value for key, value in ours.items()}), ours


def test_translate__with_its_options():
    """DeiT III's authors name the scale of layers otherwise; timm's function needs an option."""

    def theirs(name):
        return name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")

    got, ours = renamed("deit3_small_patch16_224", theirs)
    assert {name: value.shape for name, value in got.items()} == {
        name: value.shape for name, value in ours.items()
    }


def test_translate__leaves_timm_as_it_was():
    from timm.models import _builder

    before = _builder.load_pretrained
    translate("test_vit", {})
    assert _builder.load_pretrained is before
