"""The parts of a detector: backbones, necks, matchers, losses, criteria, and the detectors.

Names are looked up on first use, so that ``import detrex.modeling.backbone`` loads a backbone's
requirements only and nothing of the losses or of the matcher.
"""

import importlib
from typing import TYPE_CHECKING, Any

from detrex.errors import did_you_mean

if TYPE_CHECKING:
    from .backbone import (
        BasicBlock,
        BasicStem,
        BottleneckBlock,
        ConvNeXt,
        FocalNet,
        ResNet,
        ResNetBlockBase,
        TimmBackbone,
        make_stage,
    )
    from .criterion import BaseCriterion, SetCriterion
    from .inference.optimize import optimize_for_inference
    from .losses import (
        CrossEntropyLoss,
        DiceLoss,
        FocalLoss,
        GIoULoss,
        L1Loss,
        cross_entropy,
        dice_loss,
        giou_loss,
        l1_loss,
        reduce_loss,
        sigmoid_focal_loss,
        smooth_l1_loss,
        weight_reduce_loss,
    )
    from .matcher import HungarianMatcher
    from .neck import ChannelMapper

_BACKBONES = (
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "ConvNeXt",
    "FocalNet",
    "ResNet",
    "ResNetBlockBase",
    "TimmBackbone",
    "make_stage",
)
_LOSSES = (
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "GIoULoss",
    "L1Loss",
    "cross_entropy",
    "dice_loss",
    "giou_loss",
    "l1_loss",
    "reduce_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "weight_reduce_loss",
)
_HOME = {
    **dict.fromkeys(_BACKBONES, "backbone"),
    **dict.fromkeys(_LOSSES, "losses"),
    "BaseCriterion": "criterion",
    "optimize_for_inference": "inference.optimize",
    "SetCriterion": "criterion",
    "HungarianMatcher": "matcher",
    "ChannelMapper": "neck",
}

__all__ = [
    "BaseCriterion",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "ChannelMapper",
    "ConvNeXt",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalNet",
    "GIoULoss",
    "HungarianMatcher",
    "L1Loss",
    "ResNet",
    "ResNetBlockBase",
    "SetCriterion",
    "TimmBackbone",
    "cross_entropy",
    "dice_loss",
    "giou_loss",
    "l1_loss",
    "make_stage",
    "optimize_for_inference",
    "reduce_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "weight_reduce_loss",
]


def __getattr__(name: str) -> Any:
    """Import the subpackage that owns ``name`` (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}.{did_you_mean(name, __all__)}"
        )
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
