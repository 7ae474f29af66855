"""What comes out of the mapper, with and without crop, in training and evaluation."""

import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks, polygons_to_bitmask
from omegaconf import ListConfig
from PIL import Image

from detrex.data import DetrDatasetMapper
from detrex.errors import ConfigError, DataError, PictureError

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


def test_call__masks_are_cut_by_a_crop(record):
    crop = T.CropTransform(5, 0, 20, HEIGHT)
    mapper = DetrDatasetMapper([crop], None, mask_on=True)
    instances = mapper(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[0, 3, 6, 13]]
    whole = DetrDatasetMapper([], None, mask_on=True)(record)["instances"].gt_masks[0]
    expected = polygons_to_bitmask(whole.polygons[0], HEIGHT, WIDTH)[:, 5:25]
    seen = polygons_to_bitmask(instances.gt_masks.polygons[0], HEIGHT, 20)
    # Drawing rounds the points where the border cuts the outline.
    assert (seen != expected).sum() <= 1


def test_call__object_whose_mask_is_cut_away_is_dropped(record):
    # The box's lower left corner is outside of the triangle.
    crop = T.CropTransform(2, 11, 3, 2)
    assert len(DetrDatasetMapper([crop], None)(record)["instances"]) == 1
    assert len(DetrDatasetMapper([crop], None, mask_on=True)(record)["instances"]) == 0


@pytest.mark.parametrize("run_lengths", [False, True])
def test_call__recomputed_boxes_are_those_of_the_masks(record, run_lengths):
    if run_lengths:
        for annotation in record["annotations"]:
            mask = polygons_to_bitmask(annotation["segmentation"], HEIGHT, WIDTH)
            annotation["segmentation"] = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    crop = T.CropTransform(2, 3, 5, HEIGHT - 3)  # leaves the triangle's left half
    mapper = DetrDatasetMapper([crop], None, mask_on=True, recompute_boxes=True)
    (box,) = mapper(record)["instances"].gt_boxes.tensor.tolist()
    assert box == pytest.approx([0, 0, 5, 5 * 10 / 9], abs=1.01 if run_lengths else 1e-4)
    with pytest.raises(ValueError, match=r"recompute_boxes=True .* set mask_on=True"):
        DetrDatasetMapper([], None, recompute_boxes=True)


def test_call__keypoints_follow_the_image(record):
    points = [3, 4, 2, 30, 20, 1, 12, 4, 0]
    for annotation in record["annotations"]:
        annotation["keypoints"] = list(points)
    mapper = DetrDatasetMapper([], None, keypoint_on=True)
    kept = mapper(record)["instances"].gt_keypoints.tensor
    assert kept[0].tolist() == [[3, 4, 2], [30, 20, 1], [0, 0, 0]]
    flip = DetrDatasetMapper(
        [FLIP, LEFT_HALF], None, keypoint_on=True, keypoint_hflip_indices=[1, 0, 2]
    )
    (moved,) = flip(record)["instances"].gt_keypoints.tensor.tolist()
    assert moved == [[WIDTH - 30, 20, 1], [0, 0, 0], [0, 0, 0]]
    twice = DetrDatasetMapper([FLIP, FLIP], None, keypoint_on=True)(record)["instances"]
    torch.testing.assert_close(twice.gt_keypoints.tensor, kept)
    with pytest.raises(ConfigError, match=r"image\.png was flipped.*keypoint_hflip_indices"):
        DetrDatasetMapper([FLIP], None, keypoint_on=True)(record)


@pytest.mark.parametrize(
    ("key", "switch"), [("segmentation", "mask_on"), ("keypoints", "keypoint_on")]
)
def test_call__object_without_what_is_wanted(record, key, switch):
    del record["annotations"][2][key]
    with pytest.raises(DataError, match=rf"image\.png: an object has no {key}, .* {switch}=True"):
        DetrDatasetMapper([], None, **{switch: True})(record)
    assert len(DetrDatasetMapper([], None)(record)["instances"]) == 2


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_call__classes_of_pixels_follow_the_image(record, tmp_path, mode):
    labels = np.random.default_rng(1).integers(0, 7, (HEIGHT, WIDTH), dtype=np.uint8)
    picture = Image.fromarray(labels.astype(np.uint16) if mode == "I;16" else labels)
    if mode == "P":
        picture.putpalette([0, 99, 200] * 256)
    picture.save(tmp_path / "labels.png")
    record["sem_seg_file_name"] = str(tmp_path / "labels.png")
    pad = T.PadTransform(2, 0, 3, 1, seg_pad_value=255)
    sample = DetrDatasetMapper([FLIP, LEFT_HALF, pad], None)(record)
    assert sample["sem_seg"].dtype == torch.int64
    assert sample["sem_seg"].shape == sample["image"].shape[1:]
    expected = np.pad(labels[:, ::-1][:, :17], ((0, 1), (2, 3)), constant_values=255)
    np.testing.assert_array_equal(sample["sem_seg"].numpy(), expected)
    larger = [T.ResizeTransform(HEIGHT, WIDTH, 2 * HEIGHT, 2 * WIDTH)]
    twice = DetrDatasetMapper(larger, None)(record)["sem_seg"].numpy()
    np.testing.assert_array_equal(twice, labels.repeat(2, 0).repeat(2, 1))
    tested = DetrDatasetMapper([], None, is_train=False)(record)
    assert not {"sem_seg", "sem_seg_file_name"} & tested.keys()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((HEIGHT, WIDTH, 3), "mode RGB, expected class numbers: write them as a picture of one"),
        ((HEIGHT, WIDTH - 1), "labels.png has 36 x 23 pixels .* its record says 37 x 23"),
    ],
)
def test_call__pictures_of_classes_that_cannot_be_used(record, tmp_path, shape, message):
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / "labels.png")
    record["sem_seg_file_name"] = str(tmp_path / "labels.png")
    with pytest.raises(PictureError, match=message):
        DetrDatasetMapper([], None)(record)


def test_read__of_a_derived_class_gives_any_channels(record, tmp_path):
    """Flipped, as its boxes are, and held against the record's size."""
    bands = np.random.default_rng(1).random((HEIGHT, WIDTH, 7)).astype(np.float32)

    class Bands(DetrDatasetMapper):
        def read(self, record):
            return bands[: record["height"]]

    mapped = Bands([FLIP], None)(record)
    np.testing.assert_array_equal(mapped["image"].numpy().transpose(1, 2, 0), bands[:, ::-1])
    with pytest.raises(PictureError, match=f"{HEIGHT - 1}"):
        Bands([FLIP], None)(record | {"height": HEIGHT - 1, "width": WIDTH - 1})
