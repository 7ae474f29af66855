"""timm's networks by name, checked and built."""

import inspect

import pytest

from detrex.errors import BackboneError
from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.backbone.timm_backbone.builder import check_name, create_network


def test_create_network__keyword_that_is_not_known():
    with pytest.raises(TypeError, match="takes no keyword 'drop_pth_rate'"):
        create_network("test_resnet", {"drop_pth_rate": 0.1})


def test_create_network__suggests_no_keyword_that_is_given():
    with pytest.raises(TypeError, match=r"keyword 'in_chan'. Did you mean 'in_channels'") as e:
        create_network("test_resnet", {"in_chans": 3, "in_chan": 4})
    assert "'in_chans'" not in str(e.value)


def test_create_network__suggests_every_keyword_of_the_wrapper():
    own = {*inspect.signature(TimmBackbone).parameters} - {"kwargs"}
    for keyword in own:
        misspelt = f"{keyword}s"
        with pytest.raises(TypeError, match=f"Did you mean.*'{keyword}'"):
            create_network("test_resnet", {misspelt: [3]})


@pytest.mark.parametrize("name", [None, 3, ["resnet18"]])
def test_check_name__is_a_text(name):
    with pytest.raises(TypeError, match="model_name must be a name such as 'resnet50', got"):
        check_name(name)


def test_check_name__leaves_hubs_to_timm():
    check_name("hf-hub:somebody/some_model")
    with pytest.raises(BackboneError, match="no model named 'hf_hub'"):
        check_name("hf_hub")


def test_create_network__of_a_folder_of_transformers(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit", "hidden_size": 16}')
    with pytest.raises(BackboneError, match=rf"use HuggingFaceBackbone\('{tmp_path}'\)"):
        create_network(f"local-dir:{tmp_path}", {})
