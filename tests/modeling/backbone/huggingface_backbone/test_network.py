"""A network of transformers as a function from images to maps."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.testing import assert_close

from detrex.modeling.backbone.huggingface_backbone.network import TransformersNetwork, is_backbone
from tests.reference.tiny_transformers import (
    SMALL_VIT,
    TYPES,
    built_by_transformers,
    maps_by_transformers,
)

IMAGES = torch.randn(2, 3, 64, 64)


def test_network__gives_chosen_maps_the_last_behind_the_final_norm():
    model = built_by_transformers("vit", SMALL_VIT)
    whole = TransformersNetwork(model, {})
    with torch.no_grad():
        every = whole(IMAGES)
        assert len(every) == 4
        assert_close(every[-1], model(IMAGES).last_hidden_state)
        chosen = TransformersNetwork(model, {}, (1, 3), 4)(IMAGES)
        (last,) = TransformersNetwork(model, {}, (3,), 4)(IMAGES)
        assert_close(chosen, [every[1], every[3]])
        assert_close(last, every[3])


def test_network__cut_short_gives_no_map_behind_a_norm():
    class OneBlock(nn.Module):
        def forward(self, images, **_):
            return SimpleNamespace(
                hidden_states=(images, images + 1), last_hidden_state=2 * (images + 1)
            )

    (whole,) = TransformersNetwork(OneBlock(), {}, (1,), 2)(IMAGES)
    (early,) = TransformersNetwork(OneBlock(), {}, (1,), 4)(IMAGES)
    assert torch.equal(whole, 2 * (IMAGES + 1))
    assert torch.equal(early, IMAGES + 1)


def test_network__keeps_the_order_of_patches():
    model = built_by_transformers("vit_mae", TYPES["vit_mae"])
    with torch.no_grad():
        found = TransformersNetwork(model, {"noise": None})(IMAGES)
        again = TransformersNetwork(model, {"noise": None})(IMAGES)
        expected = maps_by_transformers(model, IMAGES)
    assert_close(found, again, rtol=0, atol=0)
    grid = found[-1][:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    assert_close(grid, expected[-1])


def test_is_backbone():
    kinds = {
        kind: is_backbone(built_by_transformers(kind, TYPES[kind])) for kind in ("vit", "swin")
    }
    assert kinds == {"vit": False, "swin": True}
