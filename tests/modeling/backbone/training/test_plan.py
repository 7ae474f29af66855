"""A plan is checked when it is made, and followed in an order that no keyword changes."""

import pytest
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.training.norms import chosen_norm
from detrex.modeling.backbone.training.plan import TrainingPlan
from detrex.modeling.pixel_statistics import IMAGENET

SPEC = NetworkSpec("net", (), InputSize(), (64, 96), 3, IMAGENET)


def _plan(norm_layer=None, frozen_norm=False, freeze_at=0, grad_checkpointing=False):
    norm = chosen_norm(norm_layer, frozen_norm, "timm", lambda: "batch")
    return TrainingPlan(norm, freeze_at, grad_checkpointing)


class _Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after)

    def forward(self, x):
        return self.norm(self.conv(x))


class _Unused(nn.Sequential):
    def __init__(self, *blocks):
        super().__init__(*blocks)
        self.spare = nn.Parameter(nn.Linear(2, 2).weight.data)

    def forward(self, x):
        return [super().forward(x)]


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"freeze_at": 6}, BackboneError, "freeze_at must be an integer"),
        ({"frozen_norm": "no"}, TypeError, "frozen_norm must be True or False"),
        ({"grad_checkpointing": 1}, TypeError, "grad_checkpointing must be True or False"),
        ({"norm_layer": "XN"}, BackboneError, "no norm is named 'XN'"),
    ],
)
def test_init__refuses(wrong, error, match):
    with pytest.raises(error, match=match):
        _plan(**wrong)


def test_apply__norms_are_converted_before_stages_are_frozen():
    network = nn.Sequential(_Block(3, 4), _Block(4, 4), _Block(4, 4))
    stages, frozen = _plan(frozen_norm=True, freeze_at=2).apply(network, SPEC)
    assert [type(block.norm) for block in network] == [FrozenBatchNorm2d] * 3
    assert frozen == ("0", "1")
    assert len(stages) == 5
    learning = [name for name, p in network.named_parameters() if p.requires_grad]
    assert learning == ["2.conv.weight", "2.conv.bias"]


@pytest.mark.parametrize("freeze_unused", [False, True])
def test_apply__unused_parameters(freeze_unused):
    network = _Unused(_Block(3, 4), _Block(4, 4))
    _plan().apply(network, SPEC, freeze_unused=freeze_unused)
    assert network.spare.requires_grad is not freeze_unused
    assert network[0].conv.weight.requires_grad


def test_apply__no_blocks_to_checkpoint():
    with pytest.raises(BackboneError, match="net has no repeated blocks"):
        _plan(grad_checkpointing=True).apply(nn.Sequential(nn.Conv2d(3, 4, 2, 2)), SPEC)
