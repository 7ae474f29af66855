"""Augmentations beyond detectron2's."""

from detrex.data.transforms.color_augmentation import ColorAugSSDTransform

__all__ = ["ColorAugSSDTransform"]
