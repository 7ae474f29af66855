"""DINO with a ConvNeXt-T (arXiv 2201.03545) and four levels of features."""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import ConvNeXt

from .dino_r50 import model

model.backbone = L(ConvNeXt)(
    in_chans=3,
    depths=[3, 3, 9, 3],
    dims=[96, 192, 384, 768],
    drop_path_rate=0.0,
    layer_scale_init_value=1.0,
    out_indices=[1, 2, 3],
)
