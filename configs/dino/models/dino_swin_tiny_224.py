"""DINO with a Swin-T (arXiv 2103.14030), windows of 7, and four levels of features."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import SwinTransformer

from detrex.config import get_config

from .dino_r50 import model

_constants = get_config("common/data/constants.py").constants

model.backbone = L(SwinTransformer)(
    pretrain_img_size=224,
    embed_dim=96,
    depths=(2, 2, 6, 2),
    num_heads=(3, 6, 12, 24),
    window_size=7,
    drop_path_rate=0.1,
    out_indices=(1, 2, 3),
)

# detectron2's Swin does not publish the statistics of its images.
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std
