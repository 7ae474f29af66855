"""DINO with a FocalNet-T (arXiv 2203.11926), large receptive field, and four levels of features."""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import FocalNet

from .dino_r50 import model

model.backbone = L(FocalNet)(
    embed_dim=96,
    depths=[2, 2, 6, 2],
    focal_levels=[3, 3, 3, 3],
    focal_windows=[3, 3, 3, 3],
    drop_path_rate=0.1,
    use_conv_embed=False,
    out_indices=[1, 2, 3],
)
