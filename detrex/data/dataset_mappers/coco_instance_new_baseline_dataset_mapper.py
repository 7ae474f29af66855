"""COCO instances with large-scale jittering (arXiv 2012.07177), for models that predict masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T

from detrex.data.dataset_mappers.segmentation_mapper import SegmentationMapper, instances_of
from detrex.data.pictures import shown
from detrex.errors import DataError


def convert_coco_poly_to_mask(
    segmentations: Sequence[Sequence[Any]], height: int, width: int
) -> torch.Tensor:
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

    Args:
        is_train: whether to keep the objects.
        augmentation: detectron2 augmentations, e.g. of ``coco_instance_transform_gen``.
        image_format: see `SegmentationMapper`.
        value_range: see `SegmentationMapper`.
    """

    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentation: Sequence[T.Augmentation],
        image_format: str,
        value_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(is_train, augmentation, image_format, value_range)

    def add_targets(
        self, record: dict[str, Any], labels: np.ndarray | None, transforms: T.TransformList
    ) -> None:
        """Add the objects of ``annotations``, where there are any; see `SegmentationMapper`."""
        annotations = record.get("annotations")
        if not self.is_train or annotations is None:
            return
        kept = [annotation for annotation in annotations if annotation.get("iscrowd", 0) == 0]
        if any("segmentation" not in annotation for annotation in kept):
            raise DataError(
                f"{shown(record['file_name'])}: an object has no segmentation, which "
                f"{type(self).__name__} needs: give every object its own, or use DetrDatasetMapper."
            )
        size = tuple(record["padding_mask"].shape)
        masks = torch.zeros((len(kept), *size), dtype=torch.bool)
        for mask, annotation in zip(masks, kept, strict=True):
            mask[:] = _transformed_mask(annotation["segmentation"], transforms, size)
        record["instances"] = instances_of(masks, [a["category_id"] for a in kept])


def _transformed_mask(
    segmentation: Any, transforms: T.TransformList, size: tuple[int, int]
) -> torch.Tensor:
    """A bool mask of ``size`` (H, W) from polygons, or from COCO's run lengths."""
    if isinstance(segmentation, dict):
        from pycocotools import mask as coco_mask

        mask = transforms.apply_segmentation(coco_mask.decode(segmentation))
        return torch.from_numpy(np.ascontiguousarray(mask == 1))
    # Corners may come to lie outside: drawing cuts polygons at the border, so no crop need.
    polygons = [
        transforms.apply_coords(np.asarray(polygon, dtype=np.float64).reshape(-1, 2)).ravel()
        for polygon in segmentation
    ]
    return convert_coco_poly_to_mask([polygons], *size)[0]
