"""Augmentations beyond detectron2's."""

from detrex.data.transforms.color_augmentation import ColorAugSSDTransform
from detrex.data.transforms.rotate90 import RandomRotate90, Rotate90Transform

__all__ = ["ColorAugSSDTransform", "RandomRotate90", "Rotate90Transform"]
