"""COCO instances with large-scale jittering (arXiv 2012.07177), for models that predict masks."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from jaxtyping import Bool

from detrex.data.coco.objects import compressed
from detrex.data.dataset_mappers.segmentation_mapper import SegmentationMapper, instances_of
from detrex.data.picture_files import shown
from detrex.errors import DataError


def convert_coco_poly_to_mask(
    segmentations: Sequence[Sequence[Any]], height: int, width: int
) -> Bool[torch.Tensor, "n h w"]:
    """Draw polygons as masks.

    Args:
        segmentations: for each object its polygons, each ``[x0, y0, x1, y1, ...]`` in pixels.
        height: of the masks.
        width: of the masks.

    Returns:
        bool ``(n, height, width)``.
    """
    from pycocotools import mask as coco_mask

    masks = torch.zeros((len(segmentations), height, width), dtype=torch.bool)
    for mask, polygons in zip(masks, segmentations, strict=True):
        encoded = coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width)
        mask[:] = torch.from_numpy(coco_mask.decode(encoded).any(axis=2))
    return masks


def build_transform_gen(
    image_size: int,
    min_scale: float,
    max_scale: float,
    random_flip: str = "horizontal",
    is_train: bool = True,
) -> list[T.Augmentation]:
    """The augmentations of large-scale jittering: flip, resize by a random factor, crop or pad.

    Args:
        image_size: side of the square that comes out, in pixels.
        min_scale: the least size of the picture, as a share of ``image_size``.
        max_scale: the greatest.
        random_flip: ``"horizontal"``, ``"vertical"`` or ``"none"``.
        is_train: has to be true.

    Returns:
        detectron2 augmentations, in order.

    Raises:
        ValueError: if ``is_train`` is false, or ``random_flip`` is something else.
    """
    if not is_train:
        raise ValueError("Large-scale jittering is for training: is_train must be True, got False.")
    flips = {
        "horizontal": [T.RandomFlip(horizontal=True)],
        "vertical": [T.RandomFlip(horizontal=False, vertical=True)],
        "none": [],
    }
    if random_flip not in flips:
        raise ValueError(f"random_flip must be one of {list(flips)}, got {random_flip!r}.")
    return [
        *flips[random_flip],
        T.ResizeScale(
            min_scale=min_scale,
            max_scale=max_scale,
            target_height=image_size,
            target_width=image_size,
        ),
        T.FixedSizeCrop(crop_size=(image_size, image_size)),
    ]


class COCOInstanceNewBaselineDatasetMapper(SegmentationMapper):
    """Reads an image and its objects' boxes and masks, and augments them together.

    Arguments are those of `SegmentationMapper`.
    ``coco_instance_transform_gen`` gives augmentations.
    """

    def add_targets(
        self, record: dict[str, Any], labels: np.ndarray | None, transforms: T.TransformList
    ) -> None:
        """Add the objects of ``annotations``, where there are any; see `SegmentationMapper`."""
        annotations = record.get("annotations")
        if not self.is_train or annotations is None:
            return
        kept = [annotation for annotation in annotations if annotation.get("iscrowd", 0) == 0]
        name = shown(record["file_name"])
        for key in ("segmentation", "category_id"):
            if any(annotation.get(key) is None for annotation in kept):
                raise DataError(
                    f"{name}: an object has no {key}, which {type(self).__name__} needs: give "
                    "every object its own, or use DetrDatasetMapper."
                )
        size = tuple(record["padding_mask"].shape)
        masks = torch.zeros((len(kept), *size), dtype=torch.bool)
        for mask, annotation in zip(masks, kept, strict=True):
            outline = annotation["segmentation"]
            if not _is_outline(outline, (record["height"], record["width"])):
                raise DataError(
                    f"{name}: an object's segmentation is {reprlib.repr(outline)}, expected "
                    "polygons [x0, y0, x1, y1, ...] of three points or more, or run lengths or a "
                    f"mask of the image's size, {record['width']} x {record['height']} (width x "
                    "height)."
                )
            mask[:] = _transformed_mask(outline, transforms, size)
        record["instances"] = instances_of(masks, [a["category_id"] for a in kept])


def _is_outline(segmentation: Any, size: tuple[int, int]) -> bool:
    """Whether it can be read, for an image of ``size`` (H, W)."""
    if isinstance(segmentation, list | tuple):
        return bool(segmentation) and all(
            isinstance(polygon, list | tuple | np.ndarray)
            and len(polygon) >= 6
            and len(polygon) % 2 == 0
            for polygon in segmentation
        )
    if isinstance(segmentation, dict):
        return tuple(segmentation.get("size") or ()) == size and "counts" in segmentation
    return isinstance(segmentation, np.ndarray) and segmentation.shape == size


def _decoded(segmentation: dict[str, Any] | np.ndarray) -> np.ndarray:
    """A uint8 mask (H, W) of zeros and ones from run lengths or from any mask."""
    if isinstance(segmentation, np.ndarray):
        return (segmentation > 0).astype(np.uint8)
    from pycocotools import mask as coco_mask

    return coco_mask.decode(compressed(segmentation))


def _transformed_mask(
    segmentation: Any, transforms: T.TransformList, size: tuple[int, int]
) -> torch.Tensor:
    """A bool mask of ``size`` (H, W) from polygons, COCO's run lengths, or a mask."""
    if not isinstance(segmentation, list | tuple):
        mask = transforms.apply_segmentation(_decoded(segmentation))
        return torch.from_numpy(np.ascontiguousarray(mask == 1))
    # Corners may come to lie outside: drawing cuts polygons at the border, so no crop need.
    polygons = [
        transforms.apply_coords(np.asarray(polygon, dtype=np.float64).reshape(-1, 2)).ravel()
        for polygon in segmentation
    ]
    return convert_coco_poly_to_mask([polygons], *size)[0]
