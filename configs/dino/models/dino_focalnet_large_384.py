"""DINO with a FocalNet-L (arXiv 2203.11926), large receptive field, and four levels of features."""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import FocalNet

from .dino_r50 import model

model.backbone = L(FocalNet)(
    embed_dim=192,
    depths=[2, 2, 18, 2],
    focal_levels=[3, 3, 3, 3],
    focal_windows=[5, 5, 5, 5],
    use_conv_embed=True,
    use_postln=True,
    use_postln_in_modulation=False,
    use_layerscale=True,
    normalize_modulator=False,
    out_indices=[1, 2, 3],
)
