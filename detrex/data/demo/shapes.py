"""A detection data set to learn without a download: coloured shapes on textured grounds.

``python -m detrex.data.demo.shapes OUT`` writes ``OUT/train`` and ``OUT/val``, each with its
pictures under ``images/`` and ``annotations.json`` in COCO's format. The same arguments give the
same pictures.

Shapes never cover each other, so each box is tight around all of its shape; boxes may overlap.
Each shape has its outline along the borders of its pixels, a polygon of which pycocotools draws
exactly these pixels again, and its centre and corners as keypoints.
"""

import argparse
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

logger = logging.getLogger(__name__)

CLASSES = ("circle", "square", "triangle")
KEYPOINTS = ("center", "top", "top_left", "top_right", "bottom_left", "bottom_right")
"""What the keypoints are called; a square has no ``top``, a circle has its ``center`` only."""

_CORNER_NAMES = {  # in the order of the outline
    "circle": (),
    "square": ("bottom_right", "bottom_left", "top_left", "top_right"),
    "triangle": ("top", "bottom_right", "bottom_left"),
}

_SUPERSAMPLING = 4
_ATTEMPTS_PER_SHAPE = 20
_MAX_TILT = math.radians(15)
_NOISE = 10.0
_MIN_CONTRAST = 60.0


@dataclass(frozen=True)
class Shape:
    """One shape as drawn.

    Attributes:
        category: index into ``CLASSES``.
        outline: the polygon's corners ``(n, 2)``, xy in pixels.
        mask: the pixels that belong to it, bool ``(H, W)``.
    """

    category: int
    outline: np.ndarray
    mask: np.ndarray

    def annotation(self) -> dict[str, Any]:
        """The COCO fields that follow from the geometry.

        Returns:
            ``category_id`` from 1, ``bbox`` (xywh in pixels) and ``area`` of the mask,
            ``iscrowd``, ``segmentation`` (polygons), ``keypoints`` (x, y and 2, or three 0 where
            the shape has none, for each of `KEYPOINTS`) and ``num_keypoints``.
        """
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        keypoints = self.keypoints()
        return {
            "category_id": self.category + 1,
            "bbox": [int(x0), int(y0), int(x1 - x0), int(y1 - y0)],
            "area": int(self.mask.sum()),
            "iscrowd": 0,
            "segmentation": [_pixel_outline(self.mask).ravel().tolist()],
            "keypoints": [v for name in KEYPOINTS for v in keypoints.get(name, (0, 0, 0))],
            "num_keypoints": len(keypoints),
        }

    def keypoints(self) -> dict[str, tuple[float, float, int]]:
        """The shape's keypoints by name: x and y as COCO counts, from a pixel's middle, and 2."""
        corners = zip(_CORNER_NAMES[CLASSES[self.category]], self.outline, strict=False)
        points = {"center": self.outline.mean(0), **dict(corners)}
        return {name: (*np.round(xy - 0.5, 2).tolist(), 2) for name, xy in points.items()}


def write_shapes_dataset(
    root: str | os.PathLike[str],
    num_images: int,
    image_size: tuple[int, int] = (128, 128),
    seed: int = 0,
    max_objects: int = 6,
    size_range: tuple[float, float] = (0.12, 0.35),
) -> tuple[Path, Path]:
    """Write a COCO-format data set of circles, squares and triangles.

    Args:
        root: the folder to write to; created where needed.
        num_images: how many pictures.
        image_size: height and width of each, in pixels, at least 16.
        seed: picture ``i`` depends on ``(seed, i)`` and the other arguments alone.
        max_objects: 1 to so many shapes are placed on a picture as long as there is room; more make
            it more crowded.
        size_range: least and greatest diameter of a shape, as shares of the shorter side.

    Returns:
        The annotations' file and the pictures' folder.

    Raises:
        ValueError: if a number is out of its range.
    """
    _check_arguments(num_images, image_size, max_objects, size_range)
    root = Path(root)
    image_root = root / "images"
    image_root.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = image_size
    for index in range(num_images):
        pixels, shapes = draw_scene(
            np.random.default_rng([seed, index]), image_size, max_objects, size_range
        )
        name = f"{index:06d}.png"
        Image.fromarray(pixels).save(image_root / name)
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for shape in shapes:
            number = {"id": len(annotations) + 1, "image_id": index + 1}
            annotations.append(number | shape.annotation())
    spokes = [[1, place] for place in range(2, len(KEYPOINTS) + 1)]  # COCO counts from 1
    categories = [
        {"id": index + 1, "name": name, "keypoints": list(KEYPOINTS), "skeleton": spokes}
        for index, name in enumerate(CLASSES)
    ]
    coco = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    json_file = root / "annotations.json"
    json_file.write_text(json.dumps(coco))
    return json_file, image_root


def draw_scene(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    max_objects: int,
    size_range: tuple[float, float],
) -> tuple[np.ndarray, list[Shape]]:
    """Draw one picture.

    Args:
        rng: where every choice comes from.
        image_size: height and width in pixels.
        max_objects: the most shapes, at least 1.
        size_range: as in `write_shapes_dataset`.

    Returns:
        The picture, uint8 RGB ``(H, W, 3)``, and its shapes, at least one.
    """
    canvas = _background(rng, image_size)
    occupied = np.zeros(image_size, dtype=bool)
    shapes: list[Shape] = []
    wanted = int(rng.integers(1, max_objects + 1))
    for _ in range(wanted * _ATTEMPTS_PER_SHAPE):
        if len(shapes) == wanted:
            break
        category = int(rng.integers(len(CLASSES)))
        outline = _outline(rng, category, image_size, size_range)
        coverage = _coverage(outline, image_size)
        mask = coverage >= 0.5
        if (occupied & (coverage > 0)).any() or not mask.any():
            continue
        occupied |= coverage > 0
        shapes.append(Shape(category, outline, mask))
        color = _contrasting_color(rng, canvas[coverage > 0].mean(0))
        canvas += coverage[..., None] * (color - canvas)
    canvas += rng.normal(0, _NOISE, canvas.shape)
    return canvas.round().clip(0, 255).astype(np.uint8), shapes


def _outline(
    rng: np.random.Generator,
    category: int,
    image_size: tuple[int, int],
    size_range: tuple[float, float],
) -> np.ndarray:
    """A polygon ``(n, 2)`` of the category, slightly tilted, wholly within the picture."""
    height, width = image_size
    radius = rng.uniform(*size_range) * min(height, width) / 2
    center = np.array([rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)])
    tilt = rng.uniform(-_MAX_TILT, _MAX_TILT)
    corners, first = {
        "circle": (48, 0.0),
        "square": (4, math.pi / 4),
        "triangle": (3, -math.pi / 2),
    }[CLASSES[category]]
    angles = first + tilt + np.arange(corners) * 2 * math.pi / corners
    return center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _coverage(outline: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """The share of each pixel that the polygon covers, ``(H, W)`` in [0, 1]."""
    height, width = image_size
    s = _SUPERSAMPLING
    fine = Image.new("L", (width * s, height * s))
    # Pillow puts pixel centres at whole numbers, pictures at halves.
    ImageDraw.Draw(fine).polygon([tuple(corner) for corner in (outline * s - 0.5).tolist()], fill=1)
    return np.asarray(fine).reshape(height, s, width, s).mean((1, 3))


def _pixel_outline(mask: np.ndarray) -> np.ndarray:
    """The corners ``(n, 2)`` of the polygon around the pixels of a convex shape, xy in pixels."""
    rows = np.flatnonzero(mask.any(1))
    left = mask.argmax(1)[rows]
    right = left + mask[rows].sum(1)
    y = np.stack([rows, rows + 1], axis=1).ravel()
    down = np.stack([right.repeat(2), y], axis=1)
    up = np.stack([left.repeat(2), y], axis=1)[::-1]
    points = np.concatenate([down, up])
    points = points[(points != np.roll(points, 1, axis=0)).any(1)]
    came, goes = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[((came == 0) != (goes == 0)).any(1)]


def _background(rng: np.random.Generator, image_size: tuple[int, int]) -> np.ndarray:
    """Smooth patches of colour with finer texture over them, float RGB ``(H, W, 3)``."""
    height, width = image_size
    ground = np.zeros((height, width, 3))
    for cells, low, high in ((4, 60, 190), (16, -25, 25)):
        for channel in range(3):
            coarse = rng.uniform(low, high, (cells, cells)).astype(np.float32)
            patch = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            ground[..., channel] += np.asarray(patch)
    return ground


def _contrasting_color(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """An RGB colour that stands out against the mean colour of the ground beneath."""
    while True:
        color = rng.uniform(0, 255, 3)
        if np.linalg.norm(color - ground) >= _MIN_CONTRAST:
            return color


def _check_arguments(
    num_images: int,
    image_size: Sequence[int],
    max_objects: int,
    size_range: Sequence[float],
) -> None:
    if num_images < 1 or max_objects < 1:
        raise ValueError(
            f"num_images and max_objects must be at least 1, got {num_images} and {max_objects}."
        )
    if len(image_size) != 2 or min(image_size) < 16:
        raise ValueError(
            f"image_size must be a height and a width of at least 16 pixels, "
            f"got {tuple(image_size)}."
        )
    if not 0 < size_range[0] <= size_range[1] <= 1:
        raise ValueError(
            f"size_range must be a least and a greatest share within (0, 1], "
            f"got {tuple(size_range)}."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a training and a validation set; see ``python -m detrex.data.demo.shapes --help``."""
    parser = argparse.ArgumentParser(prog="python -m detrex.data.demo.shapes", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument("--train", type=int, default=400, help="training pictures (%(default)s)")
    parser.add_argument("--val", type=int, default=50, help="validation pictures (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side in pixels (%(default)s)")
    parser.add_argument("--max-objects", type=int, default=6, help="shapes at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (%(default)s)")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for part, (split, count) in enumerate((("train", args.train), ("val", args.val))):
        json_file, _ = write_shapes_dataset(
            args.out / split,
            count,
            image_size=(args.size, args.size),
            seed=2 * args.seed + part,
            max_objects=args.max_objects,
        )
        logger.info("Wrote %d pictures and %s", count, json_file)


if __name__ == "__main__":
    main()
