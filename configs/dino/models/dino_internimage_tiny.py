"""DINO with an InternImage-T (arXiv 2211.05778) and four levels of features."""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import InternImage

from .dino_r50 import model

model.backbone = L(InternImage)(
    channels=64,
    depths=[4, 4, 18, 4],
    groups=[4, 8, 16, 32],
    drop_path_rate=0.1,
    layer_scale=1.0,
    offset_scale=1.0,
    post_norm=False,
    with_cp=False,
    out_indices=[1, 2, 3],
)
