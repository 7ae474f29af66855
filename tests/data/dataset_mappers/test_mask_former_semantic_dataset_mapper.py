"""Classes of pixels follow the picture, a mask for each."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from detrex.data.dataset_mappers import (
    MaskFormerSemanticDatasetMapper,
    maskformer_semantic_transform_gen,
)
from detrex.errors import DataError


def build(augmentation, ignore_label=255, **kwargs):
    metadata = type(MetadataCatalog)().get("here").set(ignore_label=ignore_label)
    options = {"image_format": "RGB", "size_divisibility": 0, **kwargs}
    return MaskFormerSemanticDatasetMapper(meta=metadata, augmentation=augmentation, **options)


@pytest.mark.parametrize(("ignore", "classes"), [(255, [0, 3, 7]), (7, [0, 3, 255])])
def test_call__a_mask_for_each_class(scene, tight_boxes, ignore, classes):
    """Padding has no class, whatever the number that a crop fills labels with."""
    mapped = build(scene.augmentation(), ignore, size_divisibility=16)(scene.record)
    expected = np.full((32, 48), ignore, np.int64)
    expected[:20, :36] = scene.moved(scene.labels.astype(np.int64), ignore)
    assert mapped["sem_seg"].dtype == torch.int64
    assert np.array_equal(mapped["sem_seg"], expected)
    instances = mapped["instances"]
    assert instances.gt_classes.tolist() == classes
    assert np.array_equal(instances.gt_masks, np.stack([expected == c for c in classes]))
    assert instances.gt_boxes.tensor.tolist() == tight_boxes(instances.gt_masks)


def test_call__nothing_but_pixels_without_a_class(scene):
    Image.fromarray(np.full_like(scene.labels, 255)).save(scene.record["sem_seg_file_name"])
    instances = build([])(scene.record)["instances"]
    assert instances.gt_masks.shape == (0, 14, 22)


def test_call__numbers_above_255(scene):
    labels = scene.labels.astype(np.uint16) * 30
    Image.fromarray(labels).save(scene.record["sem_seg_file_name"])
    mapped = build([], 7650)(scene.record)
    assert np.array_equal(mapped["sem_seg"], labels)
    assert mapped["instances"].gt_classes.tolist() == [0, 90, 210]


def test_call__without_labels(scene):
    del scene.record["sem_seg_file_name"]
    mapper = build([])
    with pytest.raises(DataError, match=r"image\.png has no sem_seg_file_name in its record"):
        mapper(scene.record)
    mapper.is_train = False
    assert "sem_seg" not in mapper(scene.record)


def test_meta__by_name_and_without_a_label_to_ignore():
    mapper = MaskFormerSemanticDatasetMapper(
        meta="a set without metadata", augmentation=[], image_format="RGB", size_divisibility=0
    )
    assert mapper.ignore_label == 255
    with pytest.raises(TypeError, match="meta is metadata, or a data set's name, got None"):
        MaskFormerSemanticDatasetMapper(
            meta=None, augmentation=[], image_format="RGB", size_divisibility=0
        )


@pytest.mark.parametrize(
    "crop",
    [
        {
            "crop_type": "absolute",
            "crop_size": [4, 4],
            "single_category_max_area": 0.9,
            "ignored_category": 255,
        },
        ("absolute", (4, 4), 0.9, 255),
    ],
)
def test_maskformer_semantic_transform_gen__crops_where_several_classes_are(scene, crop):
    """A corner of one pixel is the only other class, and crops hold it far more often than not."""
    labels = np.zeros_like(scene.labels)
    labels[:, -2:] = 3
    Image.fromarray(labels).save(scene.record["sem_seg_file_name"])
    mapper = build(maskformer_semantic_transform_gen(14, 99, "choice", True, crop, True, "RGB"))
    np.random.seed(0)
    found = [len(mapper(scene.record)["instances"]) for _ in range(20)]
    assert sum(number == 2 for number in found) > 10  # by chance alone 2 of 20


def test_maskformer_semantic_transform_gen__without_a_crop_and_with_a_wrong_one():
    gens = maskformer_semantic_transform_gen(14, 99, "choice", False, {}, False, "RGB")
    assert len(gens) == 2
    with pytest.raises(ValueError, match="crop_type must be one of"):
        maskformer_semantic_transform_gen(14, 99, "choice", True, {}, False, "RGB")
