"""DINO with a Swin-L (arXiv 2103.14030), windows of 12, and four levels of features."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import SwinTransformer

from detrex.config import get_config

from .dino_r50 import model

_constants = get_config("common/data/constants.py").constants

model.backbone = L(SwinTransformer)(
    pretrain_img_size=384,
    embed_dim=192,
    depths=(2, 2, 18, 2),
    num_heads=(6, 12, 24, 48),
    window_size=12,
    drop_path_rate=0.2,
    out_indices=(1, 2, 3),
)

# detectron2's Swin does not publish the statistics of its images.
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std
