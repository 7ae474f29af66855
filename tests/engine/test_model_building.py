"""A detector from its config, and what is hung on its heads."""

import pytest
import timm
import torch
from detectron2.config import LazyCall as L
from detectron2.modeling.meta_arch.fcos import FCOSHead
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_detectron2_config, resolve_pixel_statistics
from detrex.engine import build_model
from detrex.modeling.backbone import TimmBackbone
from tests.reference.stand_in import stand_in_config


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


def test_build_model__same_seed_same_weights(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    first, second, other = (build_model(cfg, seed).state_dict() for seed in (1, 1, 2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_build_model__warns_of_weights_that_expect_other_images(tmp_path, caplog):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    cfg = stand_in_config(str(tmp_path))
    cfg.model = get_detectron2_config("common/models/fcos.py").model
    cfg.model.backbone.bottom_up = L(TimmBackbone)(
        model_name="test_resnet",
        out_features=["res3", "res4", "res5"],
        weights=str(tmp_path / "weights.pth"),
    )
    build_model(cfg, 0)
    assert "pixel_std [1.0, 1.0, 1.0] in RGB, and the weights of TimmBackbone" in caplog.text
    caplog.clear()
    cfg.model.pixel_mean = cfg.model.pixel_std = "auto"
    resolve_pixel_statistics(cfg)
    build_model(cfg, 0)
    assert "the weights of TimmBackbone" not in caplog.text
