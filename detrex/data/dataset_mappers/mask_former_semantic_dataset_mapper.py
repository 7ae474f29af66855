"""The class of every pixel for models that predict a mask for each (MaskFormer, 2107.06278)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T

from detrex.data.dataset_mappers.segmentation_mapper import (
    SegmentationMapper,
    check_crop_type,
    instances_of,
    labels_of,
    resize_crop_flip,
)
from detrex.data.picture_files import shown
from detrex.errors import DataError


def build_transform_gen(
    min_size_train: int | Sequence[int],
    max_size_train: int,
    min_size_train_sampling: str,
    enabled_crop: bool,
    crop_params: Mapping[str, Any] | Sequence[Any],
    color_aug_ssd: bool,
    img_format: str,
    is_train: bool = True,
) -> list[T.Augmentation]:
    """The augmentations of MaskFormer for semantic segmentation.

    Arguments are those of `resize_crop_flip`; with ``enabled_crop`` the crop is detectron2's
    ``RandomCrop_CategoryAreaConstraint`` with ``crop_params``, by name or in order: ``crop_type``,
    ``crop_size``, ``single_category_max_area``, ``ignored_category``.

    Returns:
        detectron2 augmentations, in order.

    Raises:
        ValueError: see `resize_crop_flip`; or an unknown ``crop_type``.
    """
    crop = None
    if enabled_crop:
        names = ("crop_type", "crop_size", "single_category_max_area", "ignored_category")
        by_name = isinstance(crop_params, Mapping)
        options = dict(crop_params if by_name else zip(names, crop_params, strict=False))
        check_crop_type(options.get("crop_type", ""))
        crop = T.RandomCrop_CategoryAreaConstraint(**options)
    return resize_crop_flip(
        min_size_train,
        max_size_train,
        min_size_train_sampling,
        crop,
        color_aug_ssd,
        img_format,
        is_train,
    )


class MaskFormerSemanticDatasetMapper(SegmentationMapper):
    """Reads an image and the class of every pixel: one mask for each class that is there.

    A record has ``sem_seg_file_name``, a picture of class numbers. What comes out has ``sem_seg``,
    int64 ``(H, W)``, and ``instances``, one for each class.

    Args:
        is_train: whether to add them.
        meta: metadata of the data set, or its name; the number of pixels without a class is its
            ``ignore_label``, 255 where it has none.
        augmentation: detectron2 augmentations, e.g. of ``maskformer_semantic_transform_gen``.
        image_format: see `SegmentationMapper`.
        size_divisibility: see `SegmentationMapper`.
        value_range: see `SegmentationMapper`.
    """

    def __init__(
        self,
        is_train: bool = True,
        *,
        meta: Any,
        augmentation: Sequence[T.Augmentation],
        image_format: str,
        size_divisibility: int,
        value_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            is_train,
            augmentation=augmentation,
            image_format=image_format,
            value_range=value_range,
            size_divisibility=size_divisibility,
        )
        self.meta = MetadataCatalog.get(meta) if isinstance(meta, str) else meta
        if not hasattr(self.meta, "get"):
            raise TypeError(f"meta is metadata, or a data set's name, got {meta!r:.80}.")
        self.ignore_label = self.meta.get("ignore_label", 255)

    def read_labels(self, record: dict[str, Any]) -> np.ndarray | None:
        """Read the record's ``sem_seg_file_name``; see `SegmentationMapper`.

        Raises:
            DataError: the record has none.
        """
        if "sem_seg_file_name" not in record:
            raise DataError(
                f"{shown(record['file_name'])} has no sem_seg_file_name in its record: name a "
                "picture with the class of every pixel, or use a mapper of instances."
            )
        return labels_of(record, "sem_seg_file_name")

    def add_targets(
        self, record: dict[str, Any], labels: np.ndarray | None, transforms: T.TransformList
    ) -> None:
        """Add ``sem_seg`` and a mask for each class; see `SegmentationMapper`."""
        if labels is None:
            return
        moved = np.ascontiguousarray(transforms.apply_segmentation(labels))
        sem_seg = torch.from_numpy(moved).long()
        sem_seg[record["padding_mask"]] = self.ignore_label
        classes = [label for label in sem_seg.unique().tolist() if label != self.ignore_label]
        masks = sem_seg == torch.tensor(classes, dtype=torch.int64)[:, None, None]
        record["sem_seg"] = sem_seg
        record["instances"] = instances_of(masks, classes)
