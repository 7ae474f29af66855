"""A picture with labels of every kind, and what becomes of an array in augmentations, by numpy."""

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image

HEIGHT, WIDTH = 14, 22


class Scene:
    """Labels in random blocks of 2 x 2 pixels; ids of segments have up to three bytes."""

    def __init__(self, folder):
        rng = np.random.default_rng(5)

        def blocks(choices):
            coarse = rng.choice(choices, size=(HEIGHT // 2, WIDTH // 2))
            return coarse.repeat(2, axis=0).repeat(2, axis=1)

        self.image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        self.labels = blocks([0, 3, 7, 255]).astype(np.uint8)
        self.ids = blocks([0, 5, 300, 70000, 0xFFFFFF])
        self.segments = [
            {"id": 70000, "category_id": 4, "isthing": False},
            {"id": 5, "category_id": 1, "isthing": True, "iscrowd": 1},
            {"id": 300, "category_id": 2, "isthing": True, "iscrowd": 0},
            {"id": 12345, "category_id": 2, "isthing": True},
        ]
        colours = np.stack([self.ids % 256, self.ids // 256 % 256, self.ids // 65536], axis=2)
        for name, pixels in (("image", self.image), ("labels", self.labels), ("ids", colours)):
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
        self.record = {
            "file_name": str(folder / "image.png"),
            "sem_seg_file_name": str(folder / "labels.png"),
            "pan_seg_file_name": str(folder / "ids.png"),
            "segments_info": self.segments,
            "height": HEIGHT,
            "width": WIDTH,
        }

    @staticmethod
    def augmentation():
        """Twice as large, turned over, cut, and padded at the right and the bottom."""
        return [
            T.Resize((2 * HEIGHT, 2 * WIDTH), interp=Image.NEAREST),
            T.RandomFlip(prob=1.0),
            T.CropTransform(3, 5, 31, 17),
            T.FixedSizeCrop((20, 36)),
        ]

    @staticmethod
    def moved(pixels, fill):
        """Do the same to an array ``(H, W)`` or ``(H, W, C)``, with `fill` in the padding."""
        large = pixels.repeat(2, axis=0).repeat(2, axis=1)[:, ::-1][5:22, 3:34]
        out = np.full((20, 36, *pixels.shape[2:]), fill, pixels.dtype)
        out[:17, :31] = large
        return out


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


@pytest.fixture
def tight_boxes():
    """Boxes around masks ``(n, H, W)``, by loops over their pixels."""

    def around(masks):
        boxes = []
        for mask in np.asarray(masks):
            rows, columns = np.nonzero(mask)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        return boxes

    return around
