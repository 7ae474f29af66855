"""Random weights that a config keeps are remarked on, wherever the backbone stands."""

import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from detrex.config import get_detectron2_config
from detrex.config.frozen_weights import frozen_without_weights
from detrex.modeling.backbone import ConvNeXt, EVAViT, TimmBackbone

TIMM = L(TimmBackbone)(model_name="test_resnet", freeze_at=2)


def remarks(backbone, checkpoint=""):
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up = backbone
    cfg = {"model": model, "train": {"init_checkpoint": checkpoint}}
    return list(frozen_without_weights(OmegaConf.create(cfg, flags={"allow_objects": True})))


@pytest.mark.parametrize(
    ("backbone", "said", "cure"),
    [
        (TIMM, "freeze_at=2", "set freeze_at to 0."),
        (L(ConvNeXt)(frozen_stages=1), "frozen_stages=1", "set frozen_stages to 0."),
        (
            L(EVAViT)(freeze_patch_embed=True),
            "patch_embed=True",
            "set freeze_patch_embed to False.",
        ),
    ],
)
def test_frozen_without_weights__of_each_kind(backbone, said, cure):
    (remark,) = remarks(backbone)
    assert remark.startswith("model.backbone.bottom_up.")
    assert f"{said} freezes stages with random weights: " in remark
    assert remark.endswith(cure)


def test_frozen_without_weights__none_where_weights_come_from_somewhere():
    assert remarks(TIMM, checkpoint="mine.pth") == []
    for weights in (True, "a.pth", L(remarks)()):
        assert remarks(L(TimmBackbone)(model_name="a", freeze_at=2, weights=weights)) == []
    assert remarks(L(TimmBackbone)(model_name="a", freeze_at=-1)) == []
