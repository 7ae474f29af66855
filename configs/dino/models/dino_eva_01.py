"""DINO with an EVA-giant (arXiv 2211.07636) made into a pyramid: strides 8, 16, 32 and 64."""

from functools import partial

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from detrex.modeling.backbone import EVAViT, SimpleFeaturePyramid

from .dino_r50 import model

model.backbone = L(SimpleFeaturePyramid)(
    net=L(EVAViT)(
        img_size=1280,
        patch_size=16,
        embed_dim=1408,
        depth=40,
        num_heads=16,
        drop_path_rate=0.6,
        window_size=16,
        mlp_ratio=6144 / 1408,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        # Every fourth block attends to the whole image, the others within windows.
        window_block_indexes=[index for index in range(40) if index % 4 != 3],
        residual_block_indexes=[],
        use_rel_pos=True,
        use_act_checkpoint=True,
        freeze_patch_embed=True,
        out_feature="last_feat",
    ),
    in_feature="${.net.out_feature}",
    out_channels=256,
    scale_factors=(2.0, 1.0, 0.5),
    top_block=L(LastLevelMaxPool)(),
    norm="LN",
    square_pad="${.net.img_size}",
)
