"""What `build_model` hangs on heads, whatever these give."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.modeling.meta_arch.fcos import FCOSHead
from omegaconf import OmegaConf
from torch import nn

from detrex.engine import build_model


class _HalfHead(FCOSHead):
    """Gives what a run in half precision would, or something else in one of its places."""

    def __init__(self, given):
        nn.Module.__init__(self)
        self.given = given

    def forward(self, features):
        return self.given


HALF = torch.ones(1, 2, 3, 3, dtype=torch.float16)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (([HALF], (HALF, HALF), [HALF]), [1, 2, 1]),
        (([HALF], [HALF], None), [1, 1, None]),
        (([HALF], [HALF], HALF), [1, 1, HALF]),
        (([HALF], [HALF], [None, HALF]), [1, 1, [None, HALF]]),
    ],
)
def test_build_model__heads_of_fcos_give_lists_of_maps_in_float32(given, expected):
    cfg = OmegaConf.create(
        {"model": L(_HalfHead)(given=0), "train": {"device": "cpu", "model_ema": None}},
        flags={"allow_objects": True},
    )
    model = build_model(cfg, 0)
    model.given = given
    for number, maps, before in zip(expected, model([]), given, strict=True):
        if isinstance(number, int):
            assert [map_.dtype for map_ in maps] == [torch.float32] * number
        else:
            assert maps is before
    model.given = HALF
    assert model([]) is HALF
