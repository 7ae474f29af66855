"""Outlines of objects through an image's transforms: polygons and COCO's run lengths."""

import functools
from importlib.util import find_spec
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import transforms as T

from detrex.data.coco.objects import compressed


def transform_outline(
    outline: list[Any] | dict[str, Any] | np.ndarray, transforms: T.TransformList
) -> Any:
    """Move an object's outline as its image was moved, and cut off what a crop cut off.

    fvcore's own crop of polygons needs the package shapely; this one needs nothing.

    Args:
        outline: polygons, each ``[x0, y0, x1, y1, ...]`` in pixels, COCO's run lengths, or a mask
            ``(H, W)``, not 0 where the object is.
        transforms: of the image, in order.

    Returns:
        Polygons as arrays, none where nothing is left; otherwise a bool mask ``(H, W)``.
    """
    if isinstance(outline, dict):
        outline = mask_util.decode(compressed(outline))
    if isinstance(outline, np.ndarray) and outline.ndim == 2:
        mask = transforms.apply_segmentation((outline != 0).astype(np.uint8))
        return np.ascontiguousarray(mask == 1)  # a pad's own label is 255
    polygons = [np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in outline]
    for transform in transforms.transforms:
        if isinstance(transform, T.CropTransform):
            polygons = crop_polygons(transform, polygons)
        else:
            polygons = transform.apply_polygons(polygons)
    return [polygon.ravel() for polygon in polygons if _area(polygon) > 0]


@functools.cache
def crop_without_shapely() -> None:
    """Teach fvcore's crop, which needs shapely for polygons, to do without where that is missing.

    For mappers other than the package's own. It changes the class `CropTransform` of this process.
    """
    if find_spec("shapely") is None:
        T.CropTransform.register_type("polygons", crop_polygons)


def crop_polygons(transform: T.CropTransform, polygons: list[np.ndarray]) -> list[np.ndarray]:
    """Crop polygons ``(n, 2)`` as an image is cropped; those of which nothing is left are gone."""
    size = (transform.w, transform.h)
    cropped = [crop_polygon(transform.apply_coords(polygon), *size) for polygon in polygons]
    return [polygon for polygon in cropped if _area(polygon) > 0]


def crop_polygon(polygon: np.ndarray, width: float, height: float) -> np.ndarray:
    """Cut a polygon at the borders of an image (Sutherland and Hodgman, 1974).

    Args:
        polygon: corners ``(n, 2)``, xy in pixels.
        width: of the image.
        height: of the image.

    Returns:
        The corners of what is inside, ``(m, 2)``; several parts are joined along the border.
    """
    for axis, limit in ((0, width), (1, height)):
        polygon = _cut(polygon, polygon[:, axis])
        polygon = _cut(polygon, limit - polygon[:, axis])
    return polygon


def _cut(polygon: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Keep the side of a straight line from which the corners' distances ``inside`` are >= 0."""
    corners = []
    pairs = zip(polygon, inside, np.roll(polygon, -1, axis=0), np.roll(inside, -1), strict=True)
    for corner, distance, following, its_distance in pairs:
        if distance >= 0:
            corners.append(corner)
        if (distance >= 0) != (its_distance >= 0):
            corners.append(corner + (following - corner) * distance / (distance - its_distance))
    return np.array(corners).reshape(-1, 2)


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
