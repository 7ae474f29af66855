"""Shapes in public signatures are true: what goes in and comes out is held against them."""

import inspect
import types
import typing
from collections.abc import Mapping

import pytest
import torch
from jaxtyping import AbstractArray, jaxtyped
from torch import nn

from detrex.layers import (
    FFN,
    MLP,
    ConvNormAct,
    LayerNorm,
    PositionEmbeddingLearned,
    PositionEmbeddingSine,
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    get_sine_pos_embed,
    masks_to_boxes,
    multi_scale_deformable_attn_pytorch,
)
from detrex.layers.box_ops import paired_generalized_box_iou
from detrex.layers.shape_spec import ShapeSpec
from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.losses import dice_loss, giou_loss, l1_loss, smooth_l1_loss
from detrex.modeling.matcher import CrossEntropyCost, FocalLossCost, GIoUCost, L1Cost
from detrex.modeling.neck import ChannelMapper


def fits(value, hint):
    """Whether a value is what an annotation says, tensors within containers too."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if kind is tuple and inner[-1] is ...:
        return all(fits(item, inner[0]) for item in value)
    if kind is tuple:
        return len(value) == len(inner) and all(map(fits, value, inner))
    if kind is not None and issubclass(kind, Mapping):
        return all(fits(item, inner[1]) for item in value.values())
    is_shape = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return isinstance(value, hint) if is_shape or hint is type(None) else True


def run_checked(function, *args):
    """Call a function, and hold its tensors against its signature."""
    target = type(function).forward if isinstance(function, nn.Module) else function
    hints = typing.get_type_hints(target)
    names = [name for name in inspect.signature(target).parameters if name != "self"]
    with jaxtyped("context"):
        for name, value in zip(names, args, strict=False):
            assert fits(value, hints[name]), f"{name} is no {hints[name]}"
        result = function(*args)
        assert fits(result, hints["return"]), f"the result is no {hints['return']}"
    return hints


def boxes(*shape):
    corners = torch.rand(*shape, 2)
    return torch.cat([corners, corners + 0.1], -1)


def neck():
    shapes = {"res3": ShapeSpec(channels=6, stride=8), "res4": ShapeSpec(channels=8, stride=16)}
    return ChannelMapper(shapes, ["res3", "res4"], out_channels=4, num_outs=3)


LABELS = torch.randint(0, 5, (2, 3))
CASES = {
    "cxcywh_to_xyxy": (box_cxcywh_to_xyxy, boxes(2, 5)),
    "xyxy_to_cxcywh": (box_xyxy_to_cxcywh, boxes(5)),
    "box_iou": (box_iou, boxes(2, 5), boxes(2, 3)),
    "box_iou_broadcast": (box_iou, boxes(5), boxes(2, 3)),
    "generalized_box_iou": (generalized_box_iou, boxes(5), boxes(3)),
    "paired_giou": (paired_generalized_box_iou, boxes(2, 5), boxes(2, 5)),
    "masks_to_boxes": (masks_to_boxes, torch.rand(3, 5, 7) > 0.5),
    "masks_to_boxes_of_none": (masks_to_boxes, torch.zeros(0, 5, 7)),
    "conv": (ConvNormAct(3, 4, 3, stride=2), torch.rand(2, 3, 7, 9)),
    "mlp": (MLP(6, 8, 4, 2), torch.rand(2, 5, 6)),
    "ffn": (FFN(6, 8), torch.rand(2, 5, 6), torch.rand(2, 5, 6)),
    "layer_norm": (LayerNorm(3, channel_last=False), torch.rand(2, 3, 5, 7)),
    "sine": (PositionEmbeddingSine(4), torch.zeros(2, 5, 7, dtype=torch.bool)),
    "learned": (PositionEmbeddingLearned(4), torch.zeros(2, 5, 7)),
    "sine_of_boxes": (get_sine_pos_embed, boxes(2, 5)),
    "deformable_attention": (
        *(multi_scale_deformable_attn_pytorch, torch.rand(2, 35, 3, 4), [(5, 7)]),
        *(torch.rand(2, 6, 3, 1, 2, 2), torch.rand(2, 6, 3, 1, 2)),
    ),
    "giou_loss": (giou_loss, boxes(5), boxes(5), torch.rand(5)),
    "l1_loss": (l1_loss, boxes(5), boxes(5), None, "none"),
    "smooth_l1_loss": (smooth_l1_loss, boxes(5), boxes(5), torch.rand(5, 1)),
    "dice_loss": (dice_loss, torch.rand(3, 5, 7), torch.ones(3, 5, 7, dtype=torch.bool)),
    "focal_cost": (FocalLossCost(), torch.rand(2, 6, 5), LABELS),
    "cross_entropy_cost": (CrossEntropyCost(), torch.rand(2, 6, 5), LABELS),
    "giou_cost": (GIoUCost(), boxes(2, 6), boxes(2, 3)),
    "l1_cost": (L1Cost(), boxes(6), boxes(3)),
    "neck": (neck(), {"res3": torch.rand(2, 6, 5, 7), "res4": torch.rand(2, 8, 3, 4)}),
    "backbone": (*(TimmBackbone("test_resnet", out_strides=(8, 16)), torch.rand(2, 3, 45, 71)),),
}


@pytest.mark.parametrize("case", CASES)
def test_signature__says_true_shapes(case):
    function, *args = CASES[case]
    hints = run_checked(function, *args)
    assert "[Tensor" in str(hints["return"])


def right(x: typing.Any) -> typing.Any:
    return x


@pytest.mark.parametrize(
    ("shape", "holds"), [("n 4", True), ("n 5", False), ("4 n", False), ("n n", False)]
)
def test_run_checked__finds_a_wrong_shape(shape, holds):
    from jaxtyping import Float

    right.__annotations__ = {"x": Float[torch.Tensor, "n 4"], "return": Float[torch.Tensor, shape]}
    if holds:
        run_checked(right, torch.rand(3, 4))
        return
    with pytest.raises(AssertionError, match=r"the result is no .*Float"):
        run_checked(right, torch.rand(3, 4))
