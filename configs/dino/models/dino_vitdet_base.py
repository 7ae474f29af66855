"""DINO with a ViT-B made into a pyramid (ViTDet, arXiv 2203.16527): strides 8, 16, 32 and 64."""

from functools import partial

from detectron2.config import LazyCall as L
from detectron2.modeling import ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from detrex.config import get_config
from detrex.modeling.backbone import SimpleFeaturePyramid

from .dino_r50 import model

_constants = get_config("common/data/constants.py").constants

model.backbone = L(SimpleFeaturePyramid)(
    net=L(ViT)(
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        drop_path_rate=0.1,
        window_size=14,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        # Every third block attends to the whole picture, the others within windows.
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],
        residual_block_indexes=[],
        use_rel_pos=True,
        out_feature="last_feat",
    ),
    in_feature="${.net.out_feature}",
    out_channels=256,
    scale_factors=(2.0, 1.0, 0.5),
    top_block=L(LastLevelMaxPool)(),
    norm="LN",
    # Pictures have up to 1333 pixels here, more than a square of `img_size`: tables are resampled.
    square_pad=0,
)

# detectron2's ViT does not publish the statistics of its images.
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std
