"""DINO with an EVA-02-B (arXiv 2303.11331) made into a pyramid: strides 8, 16, 32 and 64."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from detrex.modeling.backbone import EVA02_ViT, SimpleFeaturePyramid

from .dino_r50 import model

model.backbone = L(SimpleFeaturePyramid)(
    net=L(EVA02_ViT)(
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        drop_path_rate=0.1,
        window_size=16,
        mlp_ratio=4 * 2 / 3,
        # Every third block attends to the whole image, the others within windows.
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],
        residual_block_indexes=[],
        use_act_checkpoint=True,
        out_feature="last_feat",
    ),
    in_feature="${.net.out_feature}",
    out_channels=256,
    scale_factors=(2.0, 1.0, 0.5),
    top_block=L(LastLevelMaxPool)(),
    norm="LN",
    square_pad="${.net.img_size}",
)
