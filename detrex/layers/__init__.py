"""Leaves of the library: tensors in, tensors out."""

from .attention import (
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    MultiheadAttention,
)
from .box_ops import (
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    masks_to_boxes,
)
from .conv import ConvNorm, ConvNormAct
from .dcn_v3 import DCNv3, DCNv3_pytorch, DCNv3Function, dcnv3_core_pytorch
from .denoising import GenerateDNQueries, apply_box_noise, apply_label_noise
from .layer_norm import LayerNorm
from .mlp import FFN, MLP
from .multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from .position_embedding import (
    PositionEmbeddingLearned,
    PositionEmbeddingSine,
    get_sine_pos_embed,
)
from .shape_spec import ShapeSpec
from .transformer import BaseTransformerLayer, TransformerLayerSequence

__all__ = [
    "FFN",
    "MLP",
    "BaseTransformerLayer",
    "ConditionalCrossAttention",
    "ConditionalSelfAttention",
    "ConvNorm",
    "ConvNormAct",
    "DCNv3",
    "DCNv3Function",
    "DCNv3_pytorch",
    "GenerateDNQueries",
    "LayerNorm",
    "MultiScaleDeformableAttention",
    "MultiScaleDeformableAttnFunction",
    "MultiheadAttention",
    "PositionEmbeddingLearned",
    "PositionEmbeddingSine",
    "ShapeSpec",
    "TransformerLayerSequence",
    "apply_box_noise",
    "apply_label_noise",
    "box_cxcywh_to_xyxy",
    "box_iou",
    "box_xyxy_to_cxcywh",
    "dcnv3_core_pytorch",
    "generalized_box_iou",
    "get_sine_pos_embed",
    "masks_to_boxes",
    "multi_scale_deformable_attn_pytorch",
]
