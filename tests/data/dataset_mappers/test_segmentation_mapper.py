"""What the mappers of masks share."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T

from detrex.data.dataset_mappers.segmentation_mapper import (
    SegmentationMapper,
    check_crop_type,
    instances_of,
    labels_of,
    resize_crop_flip,
)
from detrex.errors import PictureError


class Nothing(SegmentationMapper):
    """Learns nothing."""

    def add_targets(self, record, labels, transforms):
        record["targets"] = labels


@pytest.mark.parametrize(("divisibility", "size"), [(0, (20, 36)), (-1, (20, 36)), (16, (32, 48))])
def test_call__pads_what_is_fixed_and_what_is_asked_for(scene, divisibility, size):
    mapper = Nothing(
        augmentation=scene.augmentation(), image_format="RGB", size_divisibility=divisibility
    )
    mapped = mapper({**scene.record, "annotations": []})
    assert mapped["image"].shape == (3, *size)
    expected = np.full((*size, 3), 128, np.uint8)
    expected[:20, :36] = scene.moved(scene.image, 128)
    assert np.array_equal(mapped["image"].permute(1, 2, 0), expected)
    inside = np.zeros(size, bool)
    inside[:17, :31] = True
    assert np.array_equal(mapped["padding_mask"], ~inside)
    assert "annotations" not in mapped
    assert "annotations" not in scene.record


def test_labels_of__have_the_size_of_the_image(scene):
    record = dict(scene.record)
    assert np.array_equal(labels_of(record, "sem_seg_file_name"), scene.labels)
    assert "sem_seg_file_name" not in record
    with pytest.raises(PictureError, match=r"labels\.png has 22 x 14 pixels .* says 22 x 15"):
        labels_of({**scene.record, "height": 15}, "sem_seg_file_name")


def test_instances_of__leaves_out_the_empty(tight_boxes):
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1, 2] = masks[2, 0:3, 4] = masks[2, 4, 0] = True
    instances = instances_of(masks, [9, 8, 7])
    assert instances.image_size == (5, 7)
    assert instances.gt_classes.tolist() == [9, 7]
    assert torch.equal(instances.gt_masks, masks[[0, 2]])
    assert instances.gt_boxes.tensor.tolist() == tight_boxes(masks[[0, 2]])
    assert len(instances_of(torch.zeros(0, 5, 7, dtype=torch.bool), [])) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"augmentation": None}, "takes a list of augmentations, got None"),
        ({"augmentation": T.RandomFlip()}, "takes a list of augmentations, got RandomFlip"),
        ({"size_divisibility": "32"}, "size_divisibility is an integer, got '32'"),
    ],
)
def test_segmentation_mapper__refuses(wrong, message):
    with pytest.raises(TypeError, match=message):
        SegmentationMapper(**{"is_train": True, "augmentation": [], "image_format": "RGB"} | wrong)


def test_resize_crop_flip__order():
    crop = T.RandomCrop("absolute", (4, 4))
    gens = resize_crop_flip([32, 48], 99, "choice", crop, True, "RGB", True)
    names = ["ResizeShortestEdge", "RandomCrop", "ColorAugSSDTransform", "RandomFlip"]
    assert [type(gen).__name__ for gen in gens] == names
    assert gens[0].short_edge_length == [32, 48]
    (resize, _) = resize_crop_flip(32, 99, "range", None, False, "RGB", True)
    image = np.zeros((16, 20, 3), np.uint8)
    assert resize.get_transform(image).apply_image(image).shape == (32, 40, 3)


@pytest.mark.parametrize(
    ("sizes", "sampling", "is_train", "message"),
    [
        ([8, 9], "all", True, r"must be 'choice', or 'range' .* got 'all' with \[8, 9\]"),
        ([7, 8, 9], "range", True, r"got 'range' with \[7, 8, 9\]"),
        (8, "choice", False, "is_train must be True"),
        ([], "choice", True, r"lengths in pixels from 1 on, got \[\] and 99"),
        (["8"], "range", True, r"lengths in pixels from 1 on, got \['8'\] and 99"),
    ],
)
def test_resize_crop_flip__refuses(sizes, sampling, is_train, message):
    with pytest.raises(ValueError, match=message):
        resize_crop_flip(sizes, 99, sampling, None, False, "RGB", is_train)


def test_check_crop_type__refuses():
    check_crop_type("absolute")
    with pytest.raises(ValueError, match=r"relative_range, .* got 'square'"):
        check_crop_type("square")
