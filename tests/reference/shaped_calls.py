"""Calls of whatever names shapes in its signature, with sizes that differ from each other."""

from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import torch
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import nn

from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    convert_coco_poly_to_mask,
)
from detrex.data.dataset_mappers.segmentation_mapper import instances_of
from detrex.data.drawing import (
    draw_boxes,
    draw_instances,
    draw_truth_beside_predictions,
    keypoints_of,
)
from detrex.export.comparison import difference_of_choices, difference_of_detections
from detrex.export.tensor_modules import TensorBackbone, TensorDetector
from detrex.inference.result import Result
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
from detrex.modeling.backbone import (
    BasicStem,
    ConvNeXt,
    DeformBottleneckBlock,
    EVA02_ViT,
    EVAViT,
    FocalNet,
    InternImage,
    ResNet,
    RoiStage,
    SimpleFeaturePyramid,
    TimmBackbone,
    TorchvisionResNet,
)
from detrex.modeling.backbone.huggingface_backbone.network import TransformersNetwork
from detrex.modeling.backbone.training.frozen_norm import FrozenBatchNormAct
from detrex.modeling.backbone.utils import add_decomposed_rel_pos
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
from detrex.report.confusion import iou_matrix
from detrex.utils.misc import interpolate
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
    places, weights = torch.rand(5, 6, 3, 1, 9, 2), torch.rand(5, 6, 3, 1, 9)
    value = torch.rand(5, 35, 3, 4)
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
        *(nn.LayerNorm(6), ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")),
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
    BaseCriterion(5)(outputs, targets)
    ModifedMatcher()(*outputs.values(), *zip(*(target.values() for target in targets), strict=True))
    assign(torch.rand(2, 6, 3), [3, 1], {})


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


class Tokens(nn.Module):
    def forward(self, images, **keywords):
        return SimpleNamespace(last_hidden_state=images.flatten(2).mT)


def wrappers():
    images = torch.rand(2, 3, 45, 71)
    TimmBackbone("test_vit", out_strides=(8, 16))(images)
    TransformersNetwork(Tokens(), {}, places=(0,), count=1)(images)
    stage = RoiStage(TimmBackbone("test_resnet", out_strides=(16, 32)))
    stage(torch.rand(2, stage.backbone.output_shape()["res4"].channels, 14, 14))


def convolutional_backbones():
    images = torch.rand(2, 3, 45, 71)
    ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))(images)
    FocalNet(embed_dim=8, depths=(1, 1, 1, 1))(images)
    InternImage(channels=8, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8))(images)
    TorchvisionResNet("resnet18", False)(images)
    stages = ResNet.make_default_stages(18, norm="FrozenBN")
    ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res2"], freeze_at=1)(images)
    DeformBottleneckBlock(6, 12, bottleneck_channels=4, stride=2)(torch.rand(2, 6, 9, 13))
    FrozenBatchNormAct(3)(images)


def vision_transformers():
    options = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 3}
    options |= {"window_block_indexes": [0], "residual_block_indexes": []}
    net = EVAViT(**options, use_rel_pos=True, out_feature="last")
    SimpleFeaturePyramid(net, "last", 6, [2.0, 1.0, 0.5])(torch.rand(2, 3, 45, 71))
    EVA02_ViT(**options)(torch.rand(2, 3, 45, 71))
    tables = torch.rand(5, 5), torch.rand(9, 5)
    add_decomposed_rel_pos(torch.rand(2, 12, 6), torch.rand(2, 12, 5), *tables, (4, 3), (2, 3))


def exported():
    model = tiny_dino().eval()
    with torch.no_grad():
        TensorBackbone(model.backbone)(torch.rand(1, 3, 45, 71))
        got = TensorDetector(model)(torch.zeros(1, 3, 45, 71, dtype=torch.uint8))
    difference_of_detections(torch.rand(11, 5), boxes(11), got, 71)
    difference_of_choices(torch.rand(7), torch.arange(3), torch.arange(3))


def pictures():
    image = np.zeros((31, 47, 3), np.uint8)
    corners = boxes(5).numpy().astype(np.float64)
    iou_matrix(corners, corners[:3])
    outlines = [[[1, 2, 20, 2, 20, 30]], [[3, 3, 9, 3, 9, 9]]]
    masks = convert_coco_poly_to_mask(outlines, 31, 47)
    found = instances_of(masks, [0, 1])
    result = Result(
        *(torch.rand(2, 4) * 30, torch.rand(2), torch.tensor([1, 0]), image),
        masks=masks,
        keypoints=torch.rand(2, 5, 3),
    )
    objects = [
        {"bbox": [1.0, 2.0, 20.0, 30.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": label}
        | {"segmentation": outline, "keypoints": [3.0, 4.0, 2.0] * 5}
        for label, outline in enumerate(outlines)
    ]
    draw_boxes(
        *(image, np.array([each["bbox"] for each in objects]), [0, 1]),
        masks=list(masks.numpy()),
        keypoints=keypoints_of(objects),
    )
    with TemporaryDirectory() as folder:
        record = {"file_name": f"{folder}/a.png", "annotations": objects}
        Image.fromarray(image).save(record["file_name"])
        draw_truth_beside_predictions(record, result.to_instances())
    draw_instances(image, found)


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
    *(losses, match_costs, criterion, neck, wrappers, exported, pictures),
    *(convolutional_backbones, vision_transformers),
    *(dino_training, dino_evaluation, dino_transformer),
)
