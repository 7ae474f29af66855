"""Masks, boxes and padding follow the picture through large-scale jittering."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask

from detrex.data.dataset_mappers import (
    COCOInstanceNewBaselineDatasetMapper,
    coco_instance_transform_gen,
)
from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    convert_coco_poly_to_mask,
)
from detrex.errors import DataError, PictureError

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(path)

    def square(x0, y0, x1, y1, **others):
        polygon = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        fields = {"bbox": [x0, y0, x1, y1], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 2}
        return fields | {"segmentation": polygon} | others

    annotations = [square(4, 2, 14, 12), square(0, 0, 20, 20, iscrowd=1)]
    size = {"height": HEIGHT, "width": WIDTH}
    return {"file_name": str(path), "image_id": 1, "annotations": annotations} | size


def test_call__fixed_resize_and_padding(record):
    augmentation = [
        T.ResizeScale(min_scale=1, max_scale=1, target_height=60, target_width=60),
        T.FixedSizeCrop(crop_size=(60, 60)),
    ]
    mapper = COCOInstanceNewBaselineDatasetMapper(augmentation=augmentation, image_format="RGB")
    mapped = mapper(record)
    assert mapped["image"].shape == (3, 60, 60)
    assert mapped["padding_mask"].dtype == torch.bool
    inside = torch.ones(60, 60, dtype=torch.bool)
    inside[:40] = False
    assert torch.equal(mapped["padding_mask"], inside)
    instances = mapped["instances"]
    assert instances.gt_masks.shape == (1, 60, 60)
    assert instances.gt_boxes.tensor.tolist() == [[8, 4, 28, 24]]
    assert instances.gt_masks[0, 4:24, 8:28].all()
    assert instances.gt_masks.sum() == 400
    assert "annotations" not in mapped


def test_call__jitter_keeps_boxes_tight_around_masks(record):
    mapper = COCOInstanceNewBaselineDatasetMapper(
        augmentation=coco_instance_transform_gen(48, 0.5, 2.0), image_format="RGB"
    )
    np.random.seed(0)
    for _ in range(5):
        mapped = mapper(record)
        assert mapped["image"].shape == (3, 48, 48)
        instances = mapped["instances"]
        for mask, box in zip(instances.gt_masks, instances.gt_boxes.tensor, strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [int(edge) for edge in tight]


def test_call__run_lengths_give_the_same_mask(record):
    mapper = COCOInstanceNewBaselineDatasetMapper(
        augmentation=[T.CropTransform(7, 1, 15, 13)], image_format="RGB"
    )
    from_polygon = mapper(record)["instances"]
    (polygon,) = record["annotations"][0]["segmentation"]
    record["annotations"][0]["segmentation"] = coco_mask.frPyObjects([polygon], HEIGHT, WIDTH)[0]
    assert from_polygon.gt_boxes.tensor.tolist() == [[0, 1, 7, 11]]
    mask = coco_mask.decode(record["annotations"][0]["segmentation"])
    columns = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=0))
    counts = np.diff(columns, prepend=0, append=mask.size).tolist()
    uncompressed = {"size": [HEIGHT, WIDTH], "counts": counts}
    for outline in (record["annotations"][0]["segmentation"], uncompressed, mask, mask > 0):
        record["annotations"][0]["segmentation"] = outline
        assert torch.equal(from_polygon.gt_masks, mapper(record)["instances"].gt_masks)


def test_call__without_objects(record):
    record["annotations"] = []
    mapper = COCOInstanceNewBaselineDatasetMapper(augmentation=[], image_format="RGB")
    instances = mapper(record)["instances"]
    assert len(instances) == 0
    assert instances.gt_masks.shape == (0, HEIGHT, WIDTH)
    assert not mapper(record)["padding_mask"].any()


def test_call__evaluation(record):
    mapper = COCOInstanceNewBaselineDatasetMapper(False, augmentation=[], image_format="RGB")
    mapped = mapper(record)
    assert "instances" not in mapped
    assert "annotations" not in mapped


def test_convert_coco_poly_to_mask__squares():
    first, second = [[1, 2, 4, 2, 4, 6, 1, 6]], [[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 7, 5, 7, 7, 5, 7]]
    masks = convert_coco_poly_to_mask([first, second], 7, 11)
    expected = torch.zeros(2, 7, 11, dtype=torch.bool)
    expected[0, 2:6, 1:4] = True
    expected[1, 0:2, 0:2] = True
    expected[1, 5:7, 5:7] = True
    assert torch.equal(masks, expected)
    assert convert_coco_poly_to_mask([], 7, 11).shape == (0, 7, 11)


@pytest.mark.parametrize(("flip", "count"), [("horizontal", 3), ("vertical", 3), ("none", 2)])
def test_coco_instance_transform_gen__flips(flip, count):
    assert len(coco_instance_transform_gen(48, 0.5, 2.0, flip)) == count


def test_coco_instance_transform_gen__refuses():
    with pytest.raises(ValueError, match="is_train must be True"):
        coco_instance_transform_gen(48, 0.5, 2.0, is_train=False)
    with pytest.raises(ValueError, match=r"random_flip must be one of .* got 'sideways'"):
        coco_instance_transform_gen(48, 0.5, 2.0, "sideways")


def test_call__reads_as_everybody_does(record, tmp_path):
    """16 bits keep their levels, and a picture that does not fit its record is named."""
    levels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint16)
    Image.fromarray(levels * 16).save(tmp_path / "wide.png")
    record["file_name"] = str(tmp_path / "wide.png")
    mapper = COCOInstanceNewBaselineDatasetMapper(
        augmentation=[T.RandomFlip(prob=1.0)], image_format="RGB", value_range=[0, 4080]
    )
    mapped = mapper(record)
    assert mapped["image"].dtype == torch.float32
    np.testing.assert_allclose(mapped["image"][1], levels[:, ::-1].astype(float), atol=1e-3)
    with pytest.raises(PictureError, match=r"wide\.png has 30 x 20 pixels .* says 30 x 21"):
        mapper({**record, "height": HEIGHT + 1})
    mapper.tfm_gens = [T.Resize((0, 0))]
    with pytest.raises(PictureError, match=r"wide\.png, 30 x 20 pixels .* cannot be augmented"):
        mapper(record)


@pytest.mark.parametrize("key", ["segmentation", "category_id"])
def test_call__an_object_without_a_mask_is_named(record, key):
    del record["annotations"][0][key]
    mapper = COCOInstanceNewBaselineDatasetMapper(augmentation=[], image_format="RGB")
    with pytest.raises(DataError, match=rf"image\.png: an object has no {key}, which COCO"):
        mapper(record)


@pytest.mark.parametrize(
    "outline",
    [
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [1, 2, 3, 4, 5, 6],
        "polygon",
        {"size": [4, 4], "counts": [8, 8]},
        {"size": [HEIGHT, WIDTH]},
        {"counts": [8, 8]},
        np.ones((4, 4), np.uint8),
    ],
)
def test_call__what_is_no_outline_is_named(record, outline):
    record["annotations"][0]["segmentation"] = outline
    mapper = COCOInstanceNewBaselineDatasetMapper(augmentation=[], image_format="RGB")
    with pytest.raises(DataError, match=r"image\.png: an object's segmentation is .*30 x 20"):
        mapper(record)
