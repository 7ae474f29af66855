"""What is left out of a network because no chosen map depends on it."""

import re

import torch
from torch import nn
from torch.testing import assert_close

from detrex.modeling.backbone.huggingface_backbone.builder import recipe_of
from detrex.modeling.backbone.huggingface_backbone.naming import named_network
from detrex.modeling.backbone.huggingface_backbone.network import TransformersNetwork
from detrex.modeling.backbone.huggingface_backbone.spec import inspect_network
from detrex.modeling.backbone.huggingface_backbone.unused_parts import find_unused_parts, leave_out
from tests.reference.tiny_transformers import SMALL_VIT, TYPES


def network_and_spec(kind, places, count):
    recipe = recipe_of(named_network(kind), TYPES[kind], 3)
    spec = inspect_network(recipe)
    return TransformersNetwork(recipe.build(), dict(spec.input_size.keywords), places, count), spec


def test_find_unused_parts__cuts_chains_from_their_end():
    network, spec = network_and_spec("vit", (1,), 4)
    found = find_unused_parts(network, spec)
    assert [name[-2:] for name in found if re.search(r"\.layers?\.\d$", name)] == [".2", ".1"]
    assert {"model.pooler", "model.layernorm"} <= set(found)


def test_leave_out__changes_no_map():
    network, spec = network_and_spec("clip_vision_model", (2,), 4)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval()(images)
        leave_out(network, find_unused_parts(network, spec))
        assert_close(network(images), expected, rtol=0, atol=0)
    assert [len(m) for m in network.modules() if isinstance(m, nn.ModuleList)] == [2]
    assert not any("post_layernorm" in name for name in network.state_dict())


def test_find_unused_parts__keeps_what_a_forward_needs():
    network, spec = network_and_spec("vit", (3,), 4)

    class Strict(TransformersNetwork):
        def forward(self, images):
            assert self.model.pooler.dense.weight.shape[0] == SMALL_VIT["hidden_size"]
            return super().forward(images)

    strict = Strict(network.model, dict(spec.input_size.keywords), (3,), 4)
    assert find_unused_parts(strict, spec) == ()
