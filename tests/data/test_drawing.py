import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    polygons_to_bitmask,
)
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


@pytest.mark.parametrize(("size", "drawn"), [((2, 5000), (2, 5000)), ((1000, 3), (4096, 12))])
def test_draw_boxes__a_strip_does_not_fill_the_memory(size, drawn):
    image = np.full((*size, 3), GREY, np.uint8)
    assert drawing.draw_boxes(image, np.array([[0, 0, 2, 2]]), [0]).shape == (*drawn, 3)


def test_draw_boxes__a_name_of_several_lines(image_rgb):
    metadata = Metadata(name="drawing_test_lines", thing_classes=["a\nb", "c"])
    assert drawing._labels([0, 1], None, metadata.thing_classes) == [r"a\nb", "c"]
    assert drawing.draw_boxes(image_rgb, [[7, 11, 29, 23]], [0], metadata=metadata).size


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


POLYGONS = [
    [[20.0, 3, 40, 3, 40, 20]],
    [[21.0, 22, 30, 22, 30, 30, 21, 30], [33, 25, 38, 25, 38, 29]],
]
MASKS = np.stack([polygons_to_bitmask(polygons, 31, 47) for polygons in POLYGONS])


def test_draw_boxes__masks_are_tinted_and_bordered(image_rgb):
    only = Metadata(name="drawing_test_masks", thing_classes=["x"], thing_colors=[(255, 0, 0)])
    boxes = [[1, 1, 4, 4], [1, 20, 5, 25]]
    drawn = drawing.draw_boxes(
        image_rgb, boxes, [0, 0], metadata=only, min_side=31, masks=iter(MASKS)
    )
    union = MASKS.any(0)
    np.testing.assert_array_equal(_touched(drawn)[:, 10:], union[:, 10:])
    inside = union & np.roll(union, 1, 0) & np.roll(union, -1, 0)
    inside &= np.roll(union, 1, 1) & np.roll(union, -1, 1)
    corners = [np.roll(union, (y, x), (0, 1)) for y in (-1, 1) for x in (-1, 1)]
    deep = inside & np.all(corners, axis=0)
    np.testing.assert_allclose(drawn[deep], [[0.6 * GREY + 102, 54, 54]] * deep.sum(), atol=2)
    assert (drawn[union & ~deep] == [255, 0, 0]).all()
    finer = MASKS.repeat(3, axis=1).repeat(3, axis=2)  # as of a picture that was reduced
    again = drawing.draw_boxes(
        image_rgb, boxes, [0, 0], metadata=only, min_side=31, masks=iter(finer)
    )
    np.testing.assert_array_equal(again, drawn)


@pytest.mark.parametrize("enlarged", [31, 100])
@pytest.mark.parametrize(
    "form",
    [
        lambda: {"pred_masks": torch.from_numpy(MASKS)},
        lambda: {"gt_masks": PolygonMasks(POLYGONS)},
        lambda: {"gt_masks": BitMasks(torch.from_numpy(MASKS))},
        lambda: {"gt_masks": torch.from_numpy(MASKS)},
    ],
)
def test_draw_instances__masks_of_every_form(image_rgb, form, enlarged, monkeypatch):
    monkeypatch.setattr(
        drawing.draw_boxes,
        "__kwdefaults__",
        {
            **drawing.draw_boxes.__kwdefaults__,
            "min_side": enlarged,
        },
    )
    found = _predictions()
    if "gt_masks" in form():
        found = Instances(
            (31, 47), gt_boxes=found.pred_boxes, gt_classes=found.pred_classes, **form()
        )
    else:
        found.set("pred_masks", form()["pred_masks"])
    expected = drawing.draw_boxes(
        image_rgb,
        _predictions().pred_boxes.tensor.numpy(),
        [0, 1],
        None if found.has("gt_boxes") else [0.9, 0.2],
        masks=MASKS,
    )
    drawn = drawing.draw_instances(image_rgb, found, min_side=enlarged)
    np.testing.assert_array_equal(drawn, expected)


POINTS = np.array([[[30, 5, 2], [40, 15, 1], [25, 25, 0]], [[0, 0, 0], [0, 0, 0], [44, 28, 2]]])


def test_draw_boxes__keypoints_and_their_lines(image_rgb):
    rules = {"keypoint_names": ["a", "b", "c"]}
    rules["keypoint_connection_rules"] = [("a", "b", (0, 0, 0)), ("b", "c", (0, 0, 0))]
    joined = Metadata(name="drawing_test_points", thing_classes=["x"], **rules)
    alone = Metadata(name="drawing_test_dots", thing_classes=["x"])
    boxes = [[1, 1, 4, 4], [1, 20, 5, 25]]
    for metadata, line in ((joined, True), (alone, False)):
        drawn = drawing.draw_boxes(
            image_rgb, boxes, [0, 0], metadata=metadata, min_side=310, keypoints=POINTS
        )
        seen = _touched(drawn)
        assert all(seen[10 * y, 10 * x] for x, y in ((30, 5), (40, 15), (44, 28)))
        assert not seen[240:260, 240:260].any()
        assert seen[100, 350] == line
        assert not seen[200, 325]


def test_draw_record__what_the_mapper_gives_is_drawn_alike(image_rgb):
    outlines = [POLYGONS[0], mask_util.encode(np.asfortranarray(MASKS[1].astype(np.uint8)))]
    boxes = _predictions().pred_boxes
    record = {
        "annotations": [
            {
                "bbox": box.tolist(),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": kind,
                "segmentation": outline,
                "keypoints": points.ravel().tolist(),
            }
            for box, kind, outline, points in zip(boxes, (0, 1), outlines, POINTS, strict=True)
        ]
    }
    fields = {"gt_boxes": boxes, "gt_classes": torch.tensor([0, 1])}
    truth = Instances((31, 47), **fields, gt_masks=torch.from_numpy(MASKS))
    truth.gt_keypoints = Keypoints(POINTS.astype(np.float32))
    both = drawing.draw_record(image_rgb, record, masks=True, keypoints=True)
    np.testing.assert_array_equal(both, drawing.draw_instances(image_rgb, truth))
    plain = drawing.draw_record(image_rgb, record)
    np.testing.assert_array_equal(
        plain, drawing.draw_instances(image_rgb, Instances((31, 47), **fields))
    )
    del record["annotations"][1]["segmentation"], record["annotations"][0]["keypoints"]
    less = drawing.draw_record(image_rgb, record, masks=True, keypoints=True)
    assert (less != plain).any()
    assert (less != both).any()


def test_draw_truth_beside_predictions__masks_where_predictions_have_them(image_rgb, tmp_path):
    Image.fromarray(image_rgb).save(tmp_path / "a.png")
    annotation = {"bbox": [20, 3, 40, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"file_name": str(tmp_path / "a.png"), "height": 31, "width": 47}
    record["annotations"] = [annotation | {"segmentation": POLYGONS[0]}]
    found = _predictions()
    plain = drawing.draw_truth_beside_predictions(record, found)
    found.pred_masks = torch.from_numpy(MASKS)
    masked = drawing.draw_truth_beside_predictions(record, found)
    half = plain.shape[1] // 2
    assert (plain[:, :half] != masked[:, :half]).any()
    assert (plain[:, half:] != masked[:, half:]).any()


def test_keypoints_of__rows_with_more_and_fewer():
    rows = [{"keypoints": [1, 2, 2]}, {}, {"keypoints": [3, 4, 1, 5, 6, 2]}]
    expected = [[[1, 2, 2], [0, 0, 0]], [[0, 0, 0]] * 2, [[3, 4, 1], [5, 6, 2]]]
    assert drawing.keypoints_of(rows).tolist() == expected
    assert drawing.keypoints_of(rows[1:2]) is None
