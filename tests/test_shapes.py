"""Shapes in signatures are true: what goes in and comes out is held against them."""

import functools

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

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
from detrex.modeling.losses import (
    DiceLoss,
    GIoULoss,
    L1Loss,
    dice_loss,
    giou_loss,
    l1_loss,
    smooth_l1_loss,
)
from detrex.modeling.matcher import CrossEntropyCost, FocalLossCost, GIoUCost, L1Cost
from detrex.modeling.neck import ChannelMapper
from tests.reference.shape_checks import (
    Call,
    checked,
    checking,
    hints_of,
    mutants,
    with_shapes,
)


def boxes(*shape):
    corners = torch.rand(*shape, 2)
    return torch.cat([corners, corners + 0.1], -1)


def box_ops():
    box_cxcywh_to_xyxy(boxes(2, 5))
    box_xyxy_to_cxcywh(boxes(5))
    box_iou(boxes(2, 5), boxes(2, 3))
    box_iou(boxes(5), boxes(2, 3))
    generalized_box_iou(boxes(5), boxes(3))
    paired_generalized_box_iou(boxes(2, 5), boxes(2, 5))
    masks_to_boxes(torch.rand(3, 5, 7) > 0.5)
    masks_to_boxes(torch.zeros(0, 5, 7))


def layers():
    ConvNormAct(3, 4, 3, stride=2)(torch.rand(2, 3, 7, 9))
    MLP(6, 8, 4, 2)(torch.rand(2, 5, 6))
    FFN(6, 8)(torch.rand(2, 5, 6), torch.rand(2, 5, 6))
    LayerNorm(3, channel_last=False)(torch.rand(2, 3, 5, 7))
    PositionEmbeddingSine(4)(torch.zeros(2, 5, 7, dtype=torch.bool))
    PositionEmbeddingLearned(4)(torch.zeros(2, 5, 7))
    get_sine_pos_embed(boxes(2, 5))


def deformable_attention():
    places, weights = torch.rand(2, 6, 3, 1, 9, 2), torch.rand(2, 6, 3, 1, 9)
    multi_scale_deformable_attn_pytorch(torch.rand(2, 35, 3, 4), [(5, 7)], places, weights)


def losses():
    for weight in (torch.rand(5), torch.rand(5, 4)):
        giou_loss(boxes(5), boxes(5), weight)
        GIoULoss()(boxes(5), boxes(5), weight)
    l1_loss(boxes(5), boxes(5), torch.rand(5, 1), "none")
    smooth_l1_loss(boxes(5), boxes(5), torch.rand(5, 1))
    L1Loss()(boxes(5), boxes(5), torch.rand(5, 1))
    for loss in (DiceLoss(), dice_loss):
        loss(torch.rand(3, 5, 7), torch.ones(3, 5, 7, dtype=torch.bool), torch.rand(3))


def match_costs():
    labels = torch.randint(0, 5, (2, 3))
    FocalLossCost()(torch.rand(2, 6, 5), labels)
    CrossEntropyCost()(torch.rand(2, 6, 5), labels)
    GIoUCost()(boxes(2, 6), boxes(2, 3))
    L1Cost()(boxes(6), boxes(3))


def neck():
    shapes = {"res3": ShapeSpec(channels=6, stride=8), "res4": ShapeSpec(channels=8, stride=16)}
    mapper = ChannelMapper(shapes, ["res3", "res4"], out_channels=4, num_outs=3)
    mapper({"res3": torch.rand(2, 6, 5, 7), "res4": torch.rand(2, 8, 3, 4)})


def wrappers():
    TimmBackbone("test_resnet", out_strides=(8, 16))(torch.rand(2, 3, 45, 71))


CASES = (box_ops, layers, deformable_attention, losses, match_costs, neck, wrappers)


@functools.cache
def calls_of(case):
    with checking() as calls:
        case()
    return calls


@pytest.mark.parametrize("case", CASES)
def test_signature__says_true_shapes(case):
    assert any(calls_of(case).values())


def test_signature__says_nothing_that_no_call_tells():
    untold = []
    for name in with_shapes():
        calls = [call for case in CASES for call in calls_of(case)[name]]
        if not calls:
            untold.append(f"{name} is not run")
            continue
        untold += [
            f"{name}: {what}"
            for what, hints in mutants(calls[0].hints)
            if not any(call.misfits(hints) for call in calls)
        ]
    assert not untold, "\n".join(untold)


def swap(x: Float[Tensor, "n 4"], y: Int[Tensor, " n"] | None = None) -> Float[Tensor, "4 n"]:
    return x.mT if y is None else x


def test_checked__finds_a_wrong_shape():
    calls: list[Call] = []
    function = checked(swap, hints_of(swap), calls)
    function(torch.rand(3, 4))
    assert [call.values["return"].shape for call in calls] == [(4, 3)]
    with pytest.raises(AssertionError, match=r"swap: return is no .*Float\[Tensor, '4 n'\].*3, 4"):
        function(torch.rand(3, 4), torch.arange(3))
    with pytest.raises(AssertionError, match=r"x is no .*'n 4'.*int64"):
        function(torch.ones(3, 4, dtype=torch.int64))
    with pytest.raises(AssertionError, match=r"y is no .*'n'"):
        function(torch.rand(4, 4), torch.arange(3))


@pytest.mark.parametrize(("count", "told"), [(5, True), (3, False)])
def test_mutants__are_told_by_odd_sizes_alone(count, told):
    calls: list[Call] = []
    hints = hints_of(generalized_box_iou)
    checked(generalized_box_iou, hints, calls)(boxes(count), boxes(3))
    alike = dict(mutants(hints))["n and m are always alike"]
    assert bool(calls[0].misfits(alike)) is told
