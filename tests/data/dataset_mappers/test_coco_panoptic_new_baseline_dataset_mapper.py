"""Segments follow the picture."""

import numpy as np
import pytest
import torch

from detrex.data.dataset_mappers import (
    COCOPanopticNewBaselineDatasetMapper,
    coco_instance_transform_gen,
    coco_panoptic_transform_gen,
)
from detrex.errors import DataError, PictureError


def test_call__a_mask_for_each_segment(scene, tight_boxes):
    """Without the crowd, and without the segment that no pixel shows."""
    mapper = COCOPanopticNewBaselineDatasetMapper(
        augmentation=scene.augmentation(), image_format="RGB"
    )
    mapped = mapper(scene.record)
    instances = mapped["instances"]
    ids = scene.moved(scene.ids, -1)
    assert instances.gt_classes.tolist() == [4, 2]
    assert np.array_equal(instances.gt_masks, np.stack([ids == 70000, ids == 300]))
    assert instances.gt_boxes.tensor.tolist() == tight_boxes(instances.gt_masks)
    assert mapped["segments_info"] == scene.segments
    assert "pan_seg_file_name" in scene.record


def test_call__padding_is_no_segment(scene):
    """Though a crop fills labels with 255, which is the greatest id."""
    scene.record["segments_info"] = [{"id": 0xFFFFFF, "category_id": 0}]
    mapper = COCOPanopticNewBaselineDatasetMapper(
        augmentation=scene.augmentation(), image_format="RGB"
    )
    (mask,) = mapper(scene.record)["instances"].gt_masks
    assert np.array_equal(mask, scene.moved(scene.ids, -1) == 0xFFFFFF)


def test_call__without_segments_and_in_evaluation(scene):
    scene.record["segments_info"] = []
    mapper = COCOPanopticNewBaselineDatasetMapper(augmentation=[], image_format="RGB")
    instances = mapper(scene.record)["instances"]
    assert instances.gt_masks.shape == (0, 14, 22)
    assert instances.gt_masks.dtype == torch.bool
    mapper.is_train = False
    assert "instances" not in mapper(scene.record)


def test_call__refuses(scene):
    mapper = COCOPanopticNewBaselineDatasetMapper(augmentation=[], image_format="RGB")
    record = {k: v for k, v in scene.record.items() if k != "segments_info"}
    with pytest.raises(DataError, match=r"image\.png has no segments_info in its record"):
        mapper(record)
    with pytest.raises(DataError, match=r"image\.png: a segment of segments_info has no id or no"):
        mapper({**record, "segments_info": [{"id": 5}]})
    scene.record["pan_seg_file_name"] += ".gone"
    with pytest.raises(PictureError, match=r"ids\.png\.gone does not exist"):
        mapper(scene.record)


def test_coco_panoptic_transform_gen__is_that_of_instances():
    assert coco_panoptic_transform_gen is coco_instance_transform_gen
