"""Shapes in signatures are true: what goes in and comes out is held against them."""

import functools

import pytest
import torch
from detectron2.utils.events import EventStorage
from jaxtyping import Float, Int
from torch import Tensor

from detrex.layers import (
    FFN,
    MLP,
    BaseTransformerLayer,
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    ConvNormAct,
    LayerNorm,
    MultiheadAttention,
    MultiScaleDeformableAttention,
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
from detrex.layers.dcn_v3 import DCNv3, DCNv3Function
from detrex.layers.denoising import (
    GenerateCDNQueries,
    GenerateDNQueries,
    apply_contrastive_box_noise,
)
from detrex.layers.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from detrex.layers.shape_spec import ShapeSpec
from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.criterion import BaseCriterion
from detrex.modeling.criterion.criterion import sigmoid_focal_loss
from detrex.modeling.dino.head import box_heads, class_heads
from detrex.modeling.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GIoULoss,
    L1Loss,
    dice_loss,
    giou_loss,
    l1_loss,
    smooth_l1_loss,
)
from detrex.modeling.matcher import (
    CrossEntropyCost,
    FocalLossCost,
    GIoUCost,
    L1Cost,
    ModifedMatcher,
)
from detrex.modeling.matcher.assignment import assign
from detrex.modeling.neck import ChannelMapper
from detrex.utils.misc import interpolate
from tests.reference.shape_checks import (
    Call,
    checked,
    checking,
    hints_of,
    mutants,
    with_shapes,
)
from tests.reference.tiny_dino import (
    SHAPES,
    random_inputs,
    random_levels,
    tiny_dino,
    tiny_transformer,
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
    value = torch.rand(2, 35, 3, 4)
    multi_scale_deformable_attn_pytorch(value, [(5, 7)], places, weights)
    MultiScaleDeformableAttnFunction.apply(value, [(5, 7)], [0], places, weights)


def denoising():
    apply_contrastive_box_noise(boxes(2, 3), torch.rand(2, 3) < 0.5)
    labels, found = [torch.tensor([1, 2, 0]), torch.tensor([1])], [boxes(3), boxes(1)]
    for queries in (GenerateDNQueries, GenerateCDNQueries):
        queries(num_queries=7, num_classes=5, label_embed_dim=6)(labels, found)


def attentions():
    query, key, value = torch.rand(2, 5, 6), torch.rand(2, 7, 6), torch.rand(2, 7, 6)
    for kind in (MultiheadAttention, ConditionalSelfAttention, ConditionalCrossAttention):
        sine = {"query_sine_embed": query} if kind is ConditionalCrossAttention else {}
        attention = kind(6, 2, batch_first=True)
        attention(query, key, value, query, query_pos=query, key_pos=key, **sine)
    places = {
        "reference_points": torch.rand(2, 5, 3, 2),
        "spatial_shapes": [(2, 2), (2, 1), (1, 1)],
    }
    attention = MultiScaleDeformableAttention(6, 2, 3, batch_first=True)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    attention(query, key, value, query, query, key_padding_mask=padding, **places)
    layer = BaseTransformerLayer(
        *([MultiheadAttention(6, 2, batch_first=True) for _ in range(2)], FFN(6, 8)),
        *(torch.nn.LayerNorm(6), ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")),
    )
    layer(query, key, value, query_pos=query, key_pos=key)


def deformable_convolution():
    DCNv3(12, stride=2, group=3)(torch.rand(2, 9, 13, 12))
    offset, weights = torch.rand(2, 5, 7, 54), torch.rand(2, 5, 7, 27)
    grid = (3, 3, 2, 2, 1, 1, 1, 1, 3, 4, 1.0)
    DCNv3Function.apply(torch.rand(2, 9, 13, 12), offset, weights, *grid)


def maps():
    interpolate(torch.rand(2, 3, 5, 7), (9, 11))


def losses():
    for weight in (torch.rand(5), torch.rand(5, 4)):
        giou_loss(boxes(5), boxes(5), weight)
        GIoULoss()(boxes(5), boxes(5), weight)
    l1_loss(boxes(5), boxes(5), torch.rand(5, 1), "none")
    smooth_l1_loss(boxes(5), boxes(5), torch.rand(5, 1))
    L1Loss()(boxes(5), boxes(5), torch.rand(5, 1))
    for loss in (DiceLoss(), dice_loss):
        loss(torch.rand(3, 5, 7), torch.ones(3, 5, 7, dtype=torch.bool), torch.rand(3))
    labels = torch.tensor([0, 5, 2])
    for targets, weight in ((labels, torch.rand(3)), (torch.rand(3, 5), torch.rand(3, 5))):
        for focal in (FocalLoss(), FocalLoss(activated=True)):
            focal(torch.rand(3, 5), targets, weight)
    classes = torch.randint(0, 5, (3, 7))
    CrossEntropyLoss()(torch.rand(3, 5, 7), classes, torch.rand(3, 7), class_weight=torch.rand(5))
    sigmoid_focal_loss(torch.rand(2, 6, 5), torch.rand(2, 6, 5), 3)


def criterion():
    outputs = {"pred_logits": torch.rand(2, 6, 5), "pred_boxes": boxes(2, 6)}
    targets = [{"labels": torch.arange(count), "boxes": boxes(count)} for count in (3, 1)]
    loss = BaseCriterion(5)
    loss(outputs, targets)
    ModifedMatcher()(*outputs.values(), *zip(*(target.values() for target in targets), strict=True))
    matches = assign(torch.rand(2, 6, 3), [3, 1], {})
    loss._get_src_permutation_idx(matches)


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


def dino_training():
    model = tiny_dino(layers=3, vis_period=1)
    with EventStorage():
        model(random_inputs([(45, 71), (64, 33)], [3, 1]))


def dino_evaluation():
    model = tiny_dino(layers=3, queries=13).eval()
    with torch.no_grad():
        model(random_inputs([(45, 71), (64, 33)]))
        model(random_inputs([(9, 17), (64, 93)]))  # an image with fewer tokens than queries
        model(random_inputs([(45, 71)] * 2))


def dino_transformer():
    features, masks, positions = random_levels()
    transformer = tiny_transformer(levels=5)
    transformer.decoder.class_embed = class_heads(32, 6, 3)
    transformer.decoder.bbox_embed = box_heads(32, 3)
    transformer(features, masks, positions)
    transformer.decoder.return_intermediate = False
    memory, references = torch.rand(2, 106, 32), boxes(2, 7)
    transformer.decoder(
        *(torch.rand(2, 7, 32), memory, memory),
        attn_masks=[torch.zeros(7, 7, dtype=torch.bool), None],
        query_key_padding_mask=torch.zeros(2, 7, dtype=torch.bool),
        key_padding_mask=torch.zeros(2, 106, dtype=torch.bool),
        reference_points=references,
        valid_ratios=torch.ones(2, 5, 2),
        spatial_shapes=SHAPES,
    )


CASES = (
    *(box_ops, layers, deformable_attention, denoising, attentions, deformable_convolution, maps),
    *(losses, match_costs, criterion, neck, wrappers),
    *(dino_training, dino_evaluation, dino_transformer),
)


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
