import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from detrex.data import drawing
from detrex.errors import PictureError

GREY = 90


@pytest.fixture
def metadata():
    return Metadata(name="drawing_test", thing_classes=["circle", "square"])


@pytest.fixture
def image_rgb():
    return np.full((31, 47, 3), GREY, np.uint8)


def _predictions(scores=(0.9, 0.2)):
    return Instances(
        (31, 47),
        pred_boxes=Boxes(torch.tensor([[3.0, 5.0, 17.0, 23.0], [19.0, 7.0, 41.0, 29.0]])),
        pred_classes=torch.tensor([0, 1]),
        scores=torch.tensor(scores),
    )


def _touched(picture):
    """Mark the pixels that differ from the plain grey background."""
    return np.abs(picture.astype(int) - GREY).max(axis=-1) > 20


def test_draw_boxes__small_image_is_enlarged_and_the_box_scales_with_it(image_rgb):
    only = Metadata(name="drawing_test_only", thing_classes=["tree"])
    picture = drawing.draw_boxes(image_rgb, [[7, 11, 29, 23]], [0], metadata=only, min_side=310)
    assert picture.shape == (310, 470, 3)
    rows, columns = np.nonzero(_touched(picture))
    assert abs(rows.min() - 110) < 4
    assert abs(columns.min() - 70) < 4
    assert abs(columns.max() - 290) < 4


def test_draw_boxes__large_image_keeps_its_size_and_is_not_written_to():
    image = np.full((83, 61, 3), GREY, np.uint8)
    assert drawing.draw_boxes(image, np.array([[3, 5, 20, 30]]), [0], min_side=61).shape == (
        83,
        61,
        3,
    )
    assert (image == GREY).all()


def test_draw_boxes__no_box_leaves_the_picture_alone(image_rgb, metadata):
    picture = drawing.draw_boxes(image_rgb, np.zeros((0, 4)), [], metadata=metadata)
    assert not _touched(picture).any()


def test_draw_boxes__one_class_in_the_dataset_is_not_named(image_rgb):
    only = Metadata(name="drawing_test_one", thing_classes=["tree"])
    assert drawing._labels([0, 0], None, only.thing_classes) == ["", ""]
    assert drawing._labels([0, 0], [0.5, 1.0], only.thing_classes) == ["50%", "100%"]


def test_draw_boxes__names_and_colours_are_the_datasets(metadata):
    words = drawing._labels([1, 0], [0.25, 0.5], metadata.thing_classes)
    assert words == ["square 25%", "circle 50%"]
    assert drawing._colours([1], [[0, 0, 0], [255, 0, 51]]) == [(255, 0, 51)]
    assert drawing._colours([1], None) == drawing._colours([1 + len(drawing._PALETTE)], None)


def test_draw_boxes__a_label_at_the_upper_edge_stays_in_the_picture(metadata):
    image = np.full((200, 300, 3), GREY, np.uint8)
    high, low = (
        drawing.draw_boxes(image, [box], [1], metadata=metadata, min_side=200)
        for box in ([50, 0, 150, 190], [50, 60, 150, 190])
    )
    assert (high[1:10, 50:80] == 0).all(axis=-1).any()
    assert (low[45:59, 50:80] == 0).all(axis=-1).any()


def test_draw_boxes__a_box_without_extent_is_a_line(image_rgb):
    assert _touched(drawing.draw_boxes(image_rgb, [[7, 11, 7, 23]], [0])).any()


def test_draw_record__leaves_crowds_out_and_reads_the_box_mode(image_rgb, metadata):
    box = {"bbox": [7, 11, 22, 12], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    crowd = {**box, "bbox": [0, 0, 46, 30], "iscrowd": 1}
    drawn = drawing.draw_record(image_rgb, {"annotations": [box, crowd]}, metadata)
    expected = drawing.draw_boxes(image_rgb, np.array([[7, 11, 29, 23]]), [1], metadata=metadata)
    np.testing.assert_array_equal(drawn, expected)


def test_draw_instances__predictions_under_the_threshold_are_left_out(image_rgb, metadata):
    picture = drawing.draw_instances(image_rgb, _predictions(), metadata, score_threshold=0.5)
    assert not _touched(picture)[:, picture.shape[1] // 2 :].any()
    assert _touched(picture).any()


def test_draw_instances__targets_of_training(image_rgb, metadata):
    targets = Instances((31, 47), gt_boxes=Boxes([[7.0, 11, 29, 23]]), gt_classes=torch.tensor([1]))
    expected = drawing.draw_boxes(image_rgb, np.array([[7, 11, 29, 23]]), [1], metadata=metadata)
    np.testing.assert_array_equal(drawing.draw_instances(image_rgb, targets, metadata), expected)


def test_draw_truth_beside_predictions__two_halves(tmp_path, image_rgb, metadata):
    Image.fromarray(image_rgb).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "annotations": []}
    picture = drawing.draw_truth_beside_predictions(record, _predictions(), metadata)
    half = (picture.shape[1] - drawing._GAP) // 2
    below_title = picture[drawing._TITLE_HEIGHT :]
    assert not _touched(below_title[:, :half]).any()
    assert _touched(below_title[:, half + drawing._GAP :]).any()


def test_draw_truth_beside_predictions__reads_as_training_does(tmp_path, image_rgb, metadata):
    """A picture that EXIF turns, with 16 bits, is drawn like the upright one with 8."""
    grey = image_rgb[..., 0]
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(grey).save(tmp_path / "upright.png")
    Image.fromarray(np.rot90(grey).astype(np.uint16) * 16).save(tmp_path / "turned.png", exif=exif)
    size = {"height": 31, "width": 47, "annotations": []}
    drawn = [
        drawing.draw_truth_beside_predictions(
            {"file_name": str(tmp_path / name), **size}, _predictions(), metadata, value_range=limit
        )
        for name, limit in (("upright.png", None), ("turned.png", (0, 4080)))
    ]
    np.testing.assert_array_equal(*drawn)
    wrong = {"file_name": str(tmp_path / "upright.png"), **size, "width": 48}
    with pytest.raises(PictureError, match=r"upright\.png has 47 x 31 pixels"):
        drawing.draw_truth_beside_predictions(wrong, _predictions(), metadata)


def test_draw_boxes__a_class_without_a_name_is_its_number():
    assert drawing._labels([1, 2, 5], None, ["a", "b"]) == ["b", "2", "5"]
