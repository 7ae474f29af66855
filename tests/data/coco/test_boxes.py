import numpy as np
import pytest

from detrex.data.coco.boxes import check_boxes
from detrex.data.coco.identity import check_image_ids
from tests.reference.annotation_files import HEIGHT, WIDTH, content, document


def checked(box=None, change=None, only=slice(None)):
    def apply(content_):
        for record in content_["annotations"][only]:
            record["bbox"] = change(*record["bbox"]) if change else box

    doc = document(apply)
    check_image_ids(doc)
    check_boxes(doc)
    return doc


def findings(doc):
    return [(f.kind, f.severity, f.count) for f in doc.findings]


ONE = slice(4, 5)
ID = "annotation 705 of image 50"


def test_check_boxes__right_ones_are_left_alone():
    doc = checked(change=lambda *box: list(box))
    assert findings(doc) == []
    assert not doc.changed
    assert doc.annotations == content()["annotations"]


@pytest.mark.parametrize(
    "box",
    [None, [], [1, 2, 3], [1, 2, 3, 4, 5], {"x": 1}, "1 2 3 4", [1, 2, 3, "w"], [[1, 2], 3, 4, 5]],
)
def test_check_boxes__not_four_numbers(box):
    doc = checked(box, only=ONE)
    assert findings(doc) == [("box-form", "error", 1)]
    assert ID in doc.findings[0].message
    assert np.flatnonzero(~doc.kept).tolist() == [4]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e999])
def test_check_boxes__not_finite(number):
    doc = checked([3, number, 5, 6], only=ONE)
    assert findings(doc) == [("box-not-finite", "error", 1)]


@pytest.mark.parametrize("box", [[30, 4, -20, 17], [3, 40, 20, -0.5]])
def test_check_boxes__negative(box):
    doc = checked(box, only=slice(4, 6))
    assert findings(doc) == [("box-negative", "error", 2)]
    assert ID in doc.findings[0].message


def test_check_boxes__texts_are_read():
    doc = checked(change=lambda *box: [str(v) for v in box], only=ONE)
    assert findings(doc) == [("box-text", "warning", 1)]
    assert doc.annotations == content()["annotations"]
    assert doc.changed


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([3, 4, 0, 17], "box-empty"),
        ([3, 4, 20, 1e-9], "box-empty"),
        ([0, 0, 0, 0], "box-empty"),
        ([WIDTH, 4, 20, 17], "box-outside"),
        ([500, 500, 10, 10], "box-outside"),
        ([-20, 4, 20, 17], "box-outside"),
        ([3, 1e30, 20, 17], "box-outside"),
        ([3, 10**400, 20, 17], "box-form"),
    ],
)
def test_check_boxes__nothing_to_find_is_left_out(box, kind):
    doc = checked(box, only=ONE)
    assert [f[0] for f in findings(doc)] == [kind]
    assert ID in doc.findings[0].message
    assert np.flatnonzero(~doc.kept).tolist() == [4]
    assert doc.changed or kind == "box-form"


def test_check_boxes__one_large_object_a_picture_drawn_a_little_too_far():
    """Such boxes would all be inside as corners, and reach out by three pixels at most."""
    doc = checked(change=lambda *_: [5, 4, WIDTH - 9, HEIGHT - 8])
    assert findings(doc) == []
    for annotation in doc.annotations[:4]:
        annotation["bbox"] = [5, 4, WIDTH - 2, HEIGHT - 8]
    check_boxes(doc)
    assert findings(doc) == [("box-reaches-out", "warning", 4)]


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-5, 4, 20, 17], [0, 4, 15, 17]),
        ([90, 50, 20, 17], [90, 50, WIDTH - 90, HEIGHT - 50]),
        ([3, -1e9, 20, 1e9 + 8], [3, 0, 20, 8]),
    ],
)
def test_check_boxes__what_reaches_out_is_clipped(box, clipped):
    doc = checked(box, only=ONE)
    assert findings(doc) == [("box-reaches-out", "warning", 1)]
    assert doc.annotations[4]["bbox"] == clipped
    assert doc.kept.all()


@pytest.mark.parametrize("box", [[-0.9, 4, 20, 17], [70, 33, WIDTH - 69, HEIGHT - 32.5]])
def test_check_boxes__a_pixel_out_is_rounding(box):
    doc = checked(box, only=ONE)
    assert findings(doc) == []
    assert doc.annotations[4]["bbox"] == box


def test_check_boxes__corners_by_the_evidence_of_the_file():
    doc = checked(change=lambda x, y, w, h: [x, y, x + w, y + h])
    ((kind, severity, count),) = findings(doc)
    assert (kind, severity) == ("box-corners", "error")
    assert count == 13
    assert "area is that of corners" in doc.findings[0].message


def test_check_boxes__corners_by_the_pictures_where_there_are_no_areas():
    def change(content_):
        for record in content_["annotations"]:
            x, y, width, height = record["bbox"]
            record["bbox"], record["area"] = [x, y, x + width, y + height], None

    doc = document(change)
    check_image_ids(doc)
    check_boxes(doc)
    ((kind, severity, count),) = findings(doc)
    assert (kind, severity) == ("box-corners", "error")
    assert 0 < count < 13
    assert "(xyxy)" in doc.findings[0].message


def test_check_boxes__small_corners_show_by_the_areas_alone():
    def change(content_):
        for record in content_["annotations"]:
            record.update(bbox=[5, 4, 15, 11], area=10 * 7)

    doc = document(change)
    check_image_ids(doc)
    check_boxes(doc)
    assert findings(doc) == [("box-corners", "error", 13)]


def test_check_boxes__a_few_in_0_to_1_are_pointed_out():
    doc = checked([0.1, 0.2, 0.3, 0.4], only=ONE)
    assert findings(doc) == [("box-relative-few", "warning", 1)]
    assert doc.kept.all()


def test_check_boxes__a_few_corners_are_pointed_out():
    doc = checked(change=lambda x, y, w, h: [x, y, x + w, y + h], only=slice(2, 3))
    ((kind, severity, count),) = findings(doc)
    assert (kind, severity, count) == ("box-reaches-out", "warning", 1)
    assert "inside as corners (xyxy)" in doc.findings[0].message


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [3, 40, 900])
def test_check_boxes__corners_of_any_data_set_and_no_false_alarm(count, seed):
    rng = np.random.default_rng(seed)
    corner = rng.random((count, 2)) * [80, 50]
    size = (1 + rng.random((count, 2)) * 30).clip(max=[[WIDTH, HEIGHT]] - corner)

    def with_boxes(boxes):
        def change(content_):
            template = content_["annotations"][0]
            content_["annotations"] = [
                {**template, "id": i + 1, "bbox": box} for i, box in enumerate(boxes.tolist())
            ]

        doc = document(change)
        check_image_ids(doc)
        check_boxes(doc)
        return [f.kind for f in doc.findings]

    assert with_boxes(np.concatenate([corner, size], 1)) == []
    sloppy = np.concatenate([corner, size * 1.02], 1)  # a few pixels beyond the edge
    assert with_boxes(sloppy) in ([], ["box-reaches-out"])
    if count > 3:
        assert with_boxes(np.concatenate([corner, corner + size], 1)) == ["box-corners"]
    relative = np.concatenate([corner, size], 1) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    assert with_boxes(relative) == ["box-relative"]


def test_check_boxes__of_a_picture_of_another_size():
    doc = checked(change=lambda *box: [3.1 * v for v in box])
    assert [f.kind for f in doc.findings] == ["box-scale"]


def test_check_boxes__no_annotations():
    doc = document(lambda c: c["annotations"].clear())
    check_image_ids(doc)
    check_boxes(doc)
    assert doc.findings == []
