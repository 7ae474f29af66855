"""Objects' masks follow the picture, which is filled up."""

import numpy as np
import pytest
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from detrex.data.dataset_mappers import MaskFormerInstanceDatasetMapper
from detrex.data.dataset_mappers.mask_former_instance_dataset_mapper import build_transform_gen


def test_call__masks_from_run_lengths(scene, tight_boxes):
    masks = [scene.labels == 3, scene.labels == 7, scene.labels == 0]
    scene.record["annotations"] = [
        {
            "segmentation": coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))),
            "bbox": [0, 0, 1, 1],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": number,
            "iscrowd": int(number == 1),
        }
        for number, mask in enumerate(masks)
    ]
    mapper = MaskFormerInstanceDatasetMapper(
        augmentations=scene.augmentation(), image_format="RGB", size_divisibility=32
    )
    mapped = mapper(scene.record)
    expected = np.zeros((2, 32, 64), bool)
    for mask, source in zip(expected, (masks[0], masks[2]), strict=True):
        mask[:20, :36] = scene.moved(source, False)
    assert mapped["image"].shape == (3, 32, 64)
    assert mapped["instances"].gt_classes.tolist() == [0, 2]
    assert np.array_equal(mapped["instances"].gt_masks, expected)
    assert mapped["instances"].gt_boxes.tensor.tolist() == tight_boxes(expected)


def test_build_transform_gen__crop():
    np.random.seed(0)
    gens = build_transform_gen([20, 30], 99, "range", True, "relative", [0.5, 0.5], False, "RGB")
    image = np.zeros((40, 60, 3), np.uint8)
    (resize, crop, _flip) = gens
    small = resize.get_transform(image).apply_image(image)
    assert 20 <= small.shape[0] <= 30
    cut = crop.get_transform(small).apply_image(small)
    assert cut.shape == (int(small.shape[0] / 2 + 0.5), int(small.shape[1] / 2 + 0.5), 3)
    assert len(build_transform_gen(20, 99, "choice", False, "", [], True, "RGB")) == 3
    with pytest.raises(ValueError, match="crop_type must be one of"):
        build_transform_gen(20, 99, "choice", True, "square", [4, 4], True, "RGB")
