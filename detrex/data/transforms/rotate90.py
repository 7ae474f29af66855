"""Turns by quarters, for pictures without an upright direction such as those from the air.

Unlike a rotation by any other angle they are exact: pixels are moved and not interpolated, and a
tight box stays tight.
"""

import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import Transform


class Rotate90Transform(Transform):
    """Turn an image counter-clockwise by quarters.

    Args:
        turns: number of quarters; any integer, taken modulo 4.
        width: width in pixels of the images to come.
        height: height in pixels of the images to come.
    """

    def __init__(self, turns: int, width: int, height: int) -> None:
        super().__init__()
        self.turns = turns % 4
        self.width = width
        self.height = height

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Turn an image ``(H, W)`` or ``(H, W, C)`` of any type."""
        return np.ascontiguousarray(np.rot90(img, self.turns))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Turn labels ``(H, W)`` like an image."""
        return self.apply_image(segmentation)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Turn points ``(n, 2)``, x and y in pixels."""
        width, height = self.width, self.height
        for _ in range(self.turns):
            coords = np.stack([coords[:, 1], width - coords[:, 0]], axis=1)
            width, height = height, width
        return coords

    def inverse(self) -> Transform:
        """The turn back."""
        if self.turns % 2:
            return Rotate90Transform(-self.turns, self.height, self.width)
        return Rotate90Transform(-self.turns, self.width, self.height)


class RandomRotate90(Augmentation):
    """Turn an image by 0, 1, 2 or 3 quarters, each as likely as the others.

    With ``RandomFlip`` beside it, all eight symmetries of the square come up equally often.
    """

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the turn of ``image`` ``(H, W, C)`` from numpy's global random state."""
        height, width = image.shape[:2]
        return Rotate90Transform(np.random.randint(4), width, height)
