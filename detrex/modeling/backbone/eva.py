"""The original's home of `SimpleFeaturePyramid` and of detectron2's learning rates by layer."""

from .simple_feature_pyramid import SimpleFeaturePyramid, get_vit_lr_decay_rate

__all__ = ["SimpleFeaturePyramid", "get_vit_lr_decay_rate"]
