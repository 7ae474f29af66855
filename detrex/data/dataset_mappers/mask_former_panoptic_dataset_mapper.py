"""Panoptic segmentation for models that predict one mask per segment (MaskFormer, 2107.06278)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T

from detrex.data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper import add_segments
from detrex.data.dataset_mappers.mask_former_semantic_dataset_mapper import (
    MaskFormerSemanticDatasetMapper,
)


class MaskFormerPanopticDatasetMapper(MaskFormerSemanticDatasetMapper):
    """Reads an image and its segments, things and stuff, and the class of every pixel if it has it.

    A record has ``pan_seg_file_name`` and ``segments_info``, see
    `COCOPanopticNewBaselineDatasetMapper`, and may have ``sem_seg_file_name``.

    Args:
        is_train: whether to add them.
        dataset_names: names of the data sets, whose first one's metadata is taken.
        augmentations: detectron2 augmentations, in order.
        image_format: see `SegmentationMapper`.
        ignore_label: number of pixels without a class in ``sem_seg``.
        size_divisibility: see `SegmentationMapper`.
        value_range: see `SegmentationMapper`.
    """

    def __init__(
        self,
        is_train: bool = True,
        *,
        dataset_names: str | Sequence[str],
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        ignore_label: int,
        size_divisibility: int,
        value_range: Sequence[float] | None = None,
    ) -> None:
        names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
        if not names:
            raise ValueError("dataset_names is empty: name the data set whose metadata is taken.")
        super().__init__(
            is_train,
            meta=MetadataCatalog.get(names[0]),
            augmentation=augmentations,
            image_format=image_format,
            size_divisibility=size_divisibility,
            value_range=value_range,
        )
        self.ignore_label = ignore_label

    def read_labels(self, record: dict[str, Any]) -> np.ndarray | None:
        """Read the record's ``sem_seg_file_name``, if it has one; see `SegmentationMapper`."""
        return super().read_labels(record) if "sem_seg_file_name" in record else None

    def add_targets(
        self, record: dict[str, Any], labels: np.ndarray | None, transforms: T.TransformList
    ) -> None:
        """Add ``sem_seg``, and a mask for each segment; see `SegmentationMapper`."""
        super().add_targets(record, labels, transforms)
        if self.is_train:
            add_segments(record, transforms)
