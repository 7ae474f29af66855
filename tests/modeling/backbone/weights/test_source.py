"""A source is taken as it is: its addresses in their order, or the tensors that it holds."""

import pytest
import torch
from torch import nn

from detrex.errors import CheckpointError
from detrex.modeling.backbone.weights.pretrained import load_pretrained
from detrex.modeling.backbone.weights.source import WeightsSource


def _load(source):
    network = nn.Sequential(nn.Conv2d(3, 4, 1))
    used = load_pretrained(network, source)
    return network, used


def _tensors(value):
    return {"0.weight": torch.full((4, 3, 1, 1), value), "0.bias": torch.full((4,), value)}


def test_source__tensors_stand_before_addresses():
    network, used = _load(WeightsSource(("gone.pth",), content=_tensors(2.0)))
    assert network[0].bias.tolist() == [2.0] * 4
    assert used.source == "the given state dict"


def test_source__a_file_that_is_not_there_is_no_reason_to_take_the_next(tmp_path):
    torch.save(_tensors(3.0), tmp_path / "there.pth")
    network, used = _load(WeightsSource((str(tmp_path / "there.pth"), "never_read.pth")))
    assert network[0].bias.tolist() == [3.0] * 4
    assert used.source == str(tmp_path / "there.pth")
    with pytest.raises(CheckpointError, match=r"gone\.pth"):
        _load(WeightsSource((str(tmp_path / "gone.pth"), str(tmp_path / "there.pth"))))
