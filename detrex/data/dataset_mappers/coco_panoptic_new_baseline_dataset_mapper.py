"""COCO's segments with large-scale jittering (arXiv 2012.07177), for models that predict masks."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T

from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    build_transform_gen,
)
from detrex.data.dataset_mappers.segmentation_mapper import SegmentationMapper, instances_of
from detrex.data.picture_files import shown
from detrex.data.pictures import check_image_size, read_image
from detrex.errors import DataError

__all__ = ["COCOPanopticNewBaselineDatasetMapper", "add_segments", "build_transform_gen"]


class COCOPanopticNewBaselineDatasetMapper(SegmentationMapper):
    """Reads an image and its segments, things and stuff, and augments them together.

    A record has ``pan_seg_file_name``, a picture whose colours are ids (red + 256 green + 65536
    blue), and ``segments_info``, a list of dicts with ``id``, ``category_id`` and perhaps
    ``iscrowd``.

    Arguments are those of `SegmentationMapper`.
    ``coco_panoptic_transform_gen`` gives augmentations.
    """

    def add_targets(
        self, record: dict[str, Any], labels: np.ndarray | None, transforms: T.TransformList
    ) -> None:
        """Add a mask for each segment; see `SegmentationMapper`."""
        if self.is_train:
            add_segments(record, transforms)


def add_segments(record: dict[str, Any], transforms: T.TransformList) -> None:
    """Add ``instances``, one for each segment that is no crowd, to a record.

    Args:
        record: with ``padding_mask``; ``pan_seg_file_name`` is taken out of it.
        transforms: of the image, in order.

    Raises:
        DataError: the record has no segments.
        PictureError: their picture cannot be read, or has another size than the image.
    """
    missing = [key for key in ("pan_seg_file_name", "segments_info") if key not in record]
    if missing:
        raise DataError(
            f"{shown(record['file_name'])} has no {' and no '.join(missing)} in its record: a "
            "mapper of panoptic segmentation needs both; use a data set registered with them."
        )
    segments = record["segments_info"]
    if not (isinstance(segments, list) and all(map(_is_segment, segments))):
        raise DataError(
            f"{shown(record['file_name'])}: a segment of segments_info has no id or no category_id "
            "that is an integer of 24 bits, which a mapper of panoptic segmentation needs: give it "
            "both."
        )
    segments = [segment for segment in segments if not segment.get("iscrowd", 0)]
    path = record.pop("pan_seg_file_name")
    colours = read_image(path, "RGB")
    check_image_size({**record, "file_name": path}, colours)
    moved = transforms.apply_segmentation(colours).astype(np.int64)
    ids = torch.from_numpy(moved @ [1, 256, 256**2])
    ids[record["padding_mask"]] = -1
    wanted = torch.tensor([segment["id"] for segment in segments], dtype=torch.int64)
    record["instances"] = instances_of(
        ids == wanted[:, None, None], [segment["category_id"] for segment in segments]
    )


def _is_segment(segment: Any) -> bool:
    """Whether it is a crowd, or has the numbers of a colour and of a class."""
    if not isinstance(segment, dict):
        return False
    ids = (segment.get("id"), segment.get("category_id"))
    are_numbers = all(isinstance(n, Integral) and 0 <= int(n) < 1 << 24 for n in ids)
    return bool(segment.get("iscrowd", 0)) or are_numbers
