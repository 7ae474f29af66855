"""COCO instances with large-scale jittering (arXiv 2012.07177), for models that predict masks."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

from detrex.data.pictures import augment, check_image_size, checked_value_range, read_image

logger = logging.getLogger(__name__)


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


class COCOInstanceNewBaselineDatasetMapper:
    """Reads an image and its objects' boxes and masks, and augments them together.

    Args:
        is_train: whether to keep the objects.
        augmentation: detectron2 augmentations, e.g. of ``coco_instance_transform_gen``.
        image_format: the order of the channels, such as ``"RGB"`` or ``"BGR"``.
        value_range: the values that become 0 and 255 in pictures of more than 8 bits; see
            :func:`detrex.data.pictures.read_image`.

    Raises:
        ValueError: if ``value_range`` is no range.
    """

    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentation: Sequence[T.Augmentation],
        image_format: str,
        value_range: Sequence[float] | None = None,
    ) -> None:
        self.tfm_gens = list(augmentation)
        self.img_format = image_format
        self.is_train = is_train
        self.value_range = checked_value_range(value_range)
        logger.info(
            "Full TransformGens used in %s: %s",
            "training" if is_train else "inference",
            self.tfm_gens,
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one record; the record itself is left as it is.

        Args:
            dataset_dict: one image in detectron2's standard format.

        Returns:
            The record with ``image``, uint8 ``(3, H, W)`` (float32 for a picture of more than 8
            bits), and ``padding_mask``, bool ``(H, W)``, true where augmentation padded; in
            training also ``instances`` with ``gt_classes``, ``gt_masks`` (bool tensor
            ``(n, H, W)``) and ``gt_boxes`` (tight around the masks, xyxy in pixels), without
            crowds and objects left empty. No ``annotations``.

        Raises:
            PictureError: the picture cannot be read or augmented, or has not its record's size.
        """
        record = copy.deepcopy(dataset_dict)
        image = read_image(record["file_name"], self.img_format, self.value_range)
        check_image_size(record, image)
        inside = np.ones(image.shape[:2], dtype=np.uint8)
        image, transforms = augment(self.tfm_gens, image, record["file_name"])
        # A crop pads labels with 255 by default, and 0 stands for nothing else.
        inside = transforms.apply_segmentation(inside)
        record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        record["padding_mask"] = torch.from_numpy(np.ascontiguousarray(inside != 1))

        annotations = record.pop("annotations", None)
        if self.is_train and annotations is not None:
            record["instances"] = _instances(annotations, transforms, image.shape[:2])
        return record


def _instances(
    annotations: list[dict[str, Any]], transforms: T.TransformList, size: tuple[int, int]
) -> Instances:
    """The objects within an image of ``size`` (H, W), with masks drawn."""
    kept = [annotation for annotation in annotations if annotation.get("iscrowd", 0) == 0]
    masks = torch.zeros((len(kept), *size), dtype=torch.bool)
    for mask, annotation in zip(masks, kept, strict=True):
        mask[:] = _transformed_mask(annotation["segmentation"], transforms, size)
    instances = Instances(size)
    instances.gt_classes = torch.tensor([a["category_id"] for a in kept], dtype=torch.int64)
    instances.gt_masks = masks
    instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    return instances[masks.flatten(1).any(1)]


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
