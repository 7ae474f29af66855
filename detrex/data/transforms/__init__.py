"""Augmentations beyond detectron2's."""

from detrex.data.transforms.color_augmentation import ColorAugSSDTransform
from detrex.data.transforms.quarter_turn import QuarterTurnTransform, RandomQuarterTurn

__all__ = ["ColorAugSSDTransform", "QuarterTurnTransform", "RandomQuarterTurn"]
