"""The blocks of a network, by its tree of modules."""

import pytest
from torch import nn

from detrex.modeling.backbone.inspection.blocks import block_names
from detrex.modeling.backbone.training.activation_checkpointing import checkpoint_blocks

timm = pytest.importorskip("timm")


def test_block_names__finds_none_in_a_row_of_layers():
    assert block_names(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))) == []
    assert checkpoint_blocks(timm.create_model("vgg11", features_only=True)) == 0
