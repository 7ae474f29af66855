"""How networks of transformers are built, and what a config refuses."""

import copy

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.huggingface_backbone.builder import recipe_of, takes_free_sizes
from detrex.modeling.backbone.huggingface_backbone.naming import named_network
from tests.reference.tiny_transformers import RESNET, SMALL_VIT, SWIN


def recipe(kind, in_channels=3, **keywords):
    return recipe_of(named_network(kind), keywords, in_channels)


def test_recipe_of__takes_lists_of_a_config():
    lists = OmegaConf.create({"depths": [1, 1, 1, 1]})
    network = recipe("resnet", **{**RESNET, "depths": lists.depths}).build((1, 3))
    assert network.channels == [8, 16]


@pytest.mark.parametrize(
    ("kind", "keywords", "error", "match"),
    [
        ("vit", {"hiden_size": 3}, TypeError, "no 'hiden_size'. Did you mean 'hidden_size'"),
        ("vit", {"hidden_size": "a"}, BackboneError, "correct that value|mend these keywords"),
        ("bert", {}, BackboneError, "is no network of images"),
        ("vit", {"dtype": "float16"}, TypeError, "'dtype' is no part of .*leave it out"),
        ("vit", {"model_type": "swin"}, TypeError, "'model_type' is no part of"),
        ("vit", {"num_channels": 4}, BackboneError, "are called in_channels here"),
        ("omdet-turbo", {}, BackboneError, "takes no images alone, but classes_input_ids, "),
    ],
)
def test_recipe_of__says_what_is_wrong(kind, keywords, error, match):
    with pytest.raises(error, match=match) as info:
        recipe(kind, **keywords).build()
    assert len(str(info.value)) < 500


def test_recipe__builds_for_other_channels_and_with_other_attention():
    built = recipe("vit", in_channels=5, attn_implementation="eager", **SMALL_VIT).build()
    assert built.embeddings.patch_embeddings.projection.in_channels == 5
    assert built.config._attn_implementation == "eager"


def test_recipe_of__other_channels_where_a_list_begins_with_them():
    keywords = {
        **{"stem_channels": [3, 8, 12], "stage_in_channels": [12, 16], "embedding_size": 8},
        **{"stage_mid_channels": [8, 8], "stage_out_channels": [16, 24]},
        **{"stage_num_blocks": [1, 1], "stage_numb_of_layers": [2, 2], "hidden_sizes": [16, 24]},
        **{"stage_downsample": [False, True], "stage_light_block": [False, True]},
        **{"stage_kernel_size": [3, 3], "depths": [1, 1]},
    }
    four = recipe("hgnet_v2", in_channels=4, **keywords)
    assert four.build()(torch.zeros(1, 4, 64, 64)).feature_maps[-1].shape == (1, 24, 8, 8)
    assert four.full_config(3).stem_channels == [3, 8, 12]


def test_recipe__listens_to_blocks_alone():
    network = recipe("swin", **SWIN).build()
    blocks = [m for m in network.modules() if type(m).__name__ == "SwinLayer"]
    assert blocks
    inner = [m for block in blocks for m in block.modules() if m is not block]
    assert not any(m._forward_hooks for m in inner)


def test_recipe__windows_depend_on_the_image_at_hand_alone():
    """transformers shrinks them at a small image, for good, and fails from then on."""
    network = recipe("donut-swin", **SWIN).build().eval()
    images = torch.randn(1, 3, 256, 320)
    with torch.no_grad():
        expected = network(images).last_hidden_state
        network(images[..., :32, :48])
        assert_close(network(images).last_hidden_state, expected, rtol=0, atol=0)
        twin = copy.deepcopy(network)
        twin(images[..., :32, :48])
    blocks = [m for m in network.modules() if hasattr(m, "shift_size")]
    assert {block.shift_size for block in blocks} == {0, 2}  # the twin has moved its own


def test_recipe__key_tells_configs_apart():
    keys = [recipe("vit", **{**SMALL_VIT, "layer_norm_eps": eps}).key for eps in (1e-6, 1e-6, 1e-5)]
    assert keys[0] == keys[1] != keys[2]


def test_takes_free_sizes():
    class Fixed(nn.Module):
        def forward(self, x):
            return x

    assert takes_free_sizes(recipe("vit").kind)
    assert not takes_free_sizes(Fixed)
