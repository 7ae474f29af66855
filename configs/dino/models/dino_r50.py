"""DINO (arXiv 2203.03605) with a ResNet-50 and four levels of features.

Each number that other parts depend on stands here once: `num_classes`, `num_queries`, `embed_dim`,
`neck.num_outs` (the levels) and the two `num_layers`; the rest follows, on the command line too.
What depends on the backbone is asked of it when the model is built: the maps that the neck gets,
and the statistics of the images. So another backbone is one assignment to `model.backbone`.
"""

from detectron2.config import LazyCall as L
from torch import nn

from detrex.layers import PositionEmbeddingSine
from detrex.modeling.backbone import BasicStem, ResNet
from detrex.modeling.dino import (
    DINO,
    DINOCriterion,
    DINOTransformer,
    DINOTransformerDecoder,
    DINOTransformerEncoder,
)
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.neck import ChannelMapper

model = L(DINO)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=1,
    ),
    position_embedding=L(PositionEmbeddingSine)(
        num_pos_feats=None,
        temperature=10000,
        normalize=True,
        offset=-0.5,
    ),
    neck=L(ChannelMapper)(
        out_channels="${..embed_dim}",
        num_outs=4,
        kernel_size=1,
        norm_layer=L(nn.GroupNorm)(num_groups=32, num_channels="${...embed_dim}"),
    ),
    transformer=L(DINOTransformer)(
        encoder=L(DINOTransformerEncoder)(
            embed_dim="${...embed_dim}",
            num_heads=8,
            feedforward_dim=2048,
            attn_dropout=0.0,
            ffn_dropout=0.0,
            num_layers=6,
            post_norm=False,
            num_feature_levels="${..num_feature_levels}",
            use_checkpoint=False,
        ),
        decoder=L(DINOTransformerDecoder)(
            embed_dim="${...embed_dim}",
            num_heads=8,
            feedforward_dim=2048,
            attn_dropout=0.0,
            ffn_dropout=0.0,
            num_layers=6,
            return_intermediate=True,
            num_feature_levels="${..num_feature_levels}",
            use_checkpoint=False,
        ),
        num_feature_levels="${..neck.num_outs}",
        two_stage_num_proposals="${..num_queries}",
    ),
    embed_dim=256,
    num_classes=80,
    num_queries=900,
    aux_loss=True,
    criterion=L(DINOCriterion)(
        num_classes="${..num_classes}",
        matcher=L(HungarianMatcher)(
            cost_class=2.0,
            cost_bbox=5.0,
            cost_giou=2.0,
            cost_class_type="focal_loss_cost",
            alpha=0.25,
            gamma=2.0,
        ),
        # The losses of the encoder and of every decoder layer inherit these weights.
        weight_dict=dict(
            loss_class=1.0,
            loss_bbox=5.0,
            loss_giou=2.0,
            loss_class_dn=1.0,
            loss_bbox_dn=5.0,
            loss_giou_dn=2.0,
        ),
        loss_class_type="focal_loss",
        alpha=0.25,
        gamma=2.0,
        two_stage_binary_cls=False,
    ),
    pixel_mean="auto",
    pixel_std="auto",
    select_box_nums_for_evaluation=300,
    dn_number=100,
    label_noise_ratio=0.5,
    box_noise_scale=1.0,
    input_format="RGB",
    device="cpu",
)
