"""What comes out of the mapper, with and without crop, in training and evaluation."""

import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from omegaconf import ListConfig
from PIL import Image

from detrex.data import DetrDatasetMapper
from detrex.errors import PictureError

HEIGHT, WIDTH = 23, 37


@pytest.fixture
def record(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)

    def annotation(box, category, **others):
        x0, y0, x1, y1 = box
        polygon = [[x0, y0, x1, y0, x1, y1]]
        fields = {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": category}
        return fields | {"segmentation": polygon, "keypoints": [0.0] * 9} | others

    return {
        "file_name": str(path),
        "image_id": 5,
        "height": HEIGHT,
        "width": WIDTH,
        "pixels": pixels,
        "annotations": [
            annotation((2, 3, 11, 13), 1, iscrowd=0),
            annotation((0, 0, 30, 20), 2, iscrowd=1),
            annotation((30, 5, 36, 9), 0),
        ],
    }


FLIP = T.RandomFlip(prob=1.0)
LEFT_HALF = T.CropTransform(0, 0, 17, HEIGHT)


def test_call__training_transforms_image_and_boxes(record):
    mapped = DetrDatasetMapper([FLIP], None)(record)
    assert mapped["image"].dtype == torch.uint8
    expected = record["pixels"][:, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(mapped["image"].numpy(), expected)
    instances = mapped["instances"]
    assert instances.image_size == (HEIGHT, WIDTH)
    assert instances.gt_classes.tolist() == [1, 0]
    assert instances.gt_boxes.tensor.tolist() == [[26, 3, 35, 13], [1, 5, 7, 9]]
    assert not instances.has("gt_masks")
    assert not instances.has("gt_keypoints")
    assert "annotations" not in mapped


def test_call__leaves_the_record_as_it_is(record):
    before = copy.deepcopy(record)
    DetrDatasetMapper([FLIP], None)(record)
    assert record.keys() == before.keys()
    assert record["annotations"] == before["annotations"]


def test_call__objects_cut_away_are_dropped(record):
    instances = DetrDatasetMapper([LEFT_HALF], None)(record)["instances"]
    assert instances.gt_classes.tolist() == [1]
    assert instances.image_size == (HEIGHT, 17)


def test_call__no_object_left(record):
    crop = T.CropTransform(12, 14, 5, 5)
    instances = DetrDatasetMapper([crop], None)(record)["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)


def test_call__without_objects(record):
    record["annotations"] = []
    assert len(DetrDatasetMapper([], None)(record)["instances"]) == 0


def test_call__masks(record):
    instances = DetrDatasetMapper([FLIP], None, mask_on=True)(record)["instances"]
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert len(instances.gt_masks) == 2


def test_call__masks_of_run_lengths(record):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[3:7, 4:12] = 1
    record["annotations"][0]["segmentation"] = mask_util.encode(mask)
    instances = DetrDatasetMapper([FLIP], None, mask_on=True)(record)["instances"]
    assert isinstance(instances.gt_masks, BitMasks)
    np.testing.assert_array_equal(instances.gt_masks.tensor[0].numpy(), mask[:, ::-1])
    assert len(instances.gt_masks) == 2


def test_call__evaluation_removes_annotations_and_never_crops(record):
    mapper = DetrDatasetMapper([], [LEFT_HALF], is_train=False)
    for _ in range(9):
        mapped = mapper(record)
        assert mapped["image"].shape == (3, HEIGHT, WIDTH)
        assert "instances" not in mapped
        assert "annotations" not in mapped


def test_call__crops_half_of_the_time(record):
    mapper = DetrDatasetMapper(ListConfig([FLIP], flags={"allow_objects": True}), [LEFT_HALF])
    np.random.seed(0)
    widths = [mapper(record)["image"].shape[2] for _ in range(100)]
    assert set(widths) == {17, WIDTH}
    assert 35 <= widths.count(17) <= 65


def test_call__follows_numpys_seed(record):
    mapper = DetrDatasetMapper(
        [T.RandomFlip(), T.RandomCrop("absolute_range", (9, 15))], [LEFT_HALF]
    )

    def draw():
        np.random.seed(7)
        return [mapper(record)["image"] for _ in range(5)]

    for first, again in zip(draw(), draw(), strict=True):
        torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_call__bgr(record):
    mapped = DetrDatasetMapper([], None, img_format="BGR")(record)
    expected = record["pixels"][..., ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(mapped["image"].numpy(), expected)


@pytest.mark.parametrize(("min_visible", "classes"), [(0.0, [1]), (0.6, [1]), (0.7, [])])
def test_call__drops_boxes_of_which_too_little_is_left(record, min_visible, classes):
    # Of the first box, 9 pixels wide from x = 2, the crop leaves 6 columns; the other is cut off.
    crop = T.CropTransform(0, 0, 8, HEIGHT)
    mapped = DetrDatasetMapper([crop], None, min_visible=min_visible)(record)
    assert mapped["instances"].gt_classes.tolist() == classes


def test_init__min_visible_out_of_range():
    with pytest.raises(ValueError, match=r"min_visible.*1\.5: give a number from 0 to 1"):
        DetrDatasetMapper([], None, min_visible=1.5)


def test_call__16_bits_keep_their_levels_and_follow_the_config(record, tmp_path):
    levels = record["pixels"][..., 0].astype(np.uint16)
    Image.fromarray(levels * 16).save(tmp_path / "wide.png")
    record["file_name"] = str(tmp_path / "wide.png")
    flipped = levels[:, ::-1].astype(np.float64)
    for value_range, scale in ((None, 16 * 255 / 65535), ([0, 4080], 1)):
        mapped = DetrDatasetMapper([FLIP], None, value_range=value_range)(record)
        assert mapped["image"].dtype == torch.float32
        for channel in mapped["image"]:
            np.testing.assert_allclose(channel, flipped * scale, atol=1e-3)
        assert mapped["instances"].gt_boxes.tensor.tolist()[0] == [26, 3, 35, 13]


def test_init__value_range_is_checked():
    with pytest.raises(ValueError, match="value_range"):
        DetrDatasetMapper([], None, value_range=[5, 5])


def test_call__a_picture_of_another_size_is_named(record):
    with pytest.raises(PictureError, match=r"image\.png has 37 x 23 pixels .* says 38 x 23"):
        DetrDatasetMapper([], None)({**record, "width": WIDTH + 1})
    with pytest.raises(PictureError, match=r"image\.png, 37 x 23 pixels .* cannot be augmented"):
        DetrDatasetMapper([T.Resize((0, 0))], None)(record)
