import numpy as np
import pycocotools.mask as mask_util
import pytest

from detrex.data.coco.identity import check_image_ids
from detrex.data.coco.objects import check_areas, check_crowds, check_masks, compressed
from tests.reference.annotation_files import HEIGHT, WIDTH, content, document


def checked(check, *args, remove=None, **values):
    """The document after one check, with values in the third annotation."""

    def change(content_):
        content_["annotations"][2].update(values)
        if remove:
            del content_["annotations"][2][remove]

    doc = document(change)
    check_image_ids(doc)
    check(doc, *args)
    return doc


def findings(doc):
    return [(f.kind, f.severity, f.count) for f in doc.findings]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, 1), (False, 0), ("1", 1), ("0", 0), (None, 0), (1.0, 1), ("true", 1)],
)
def test_check_crowds__written_otherwise(value, expected):
    doc = checked(check_crowds, iscrowd=value)
    assert findings(doc) == [("iscrowd-missing", "note", 1)]
    assert doc.annotations[2]["iscrowd"] == expected
    assert type(doc.annotations[2]["iscrowd"]) is int
    assert doc.changed


def test_check_crowds__missing_is_none():
    doc = checked(check_crowds, remove="iscrowd")
    assert doc.annotations == content()["annotations"]


@pytest.mark.parametrize("value", [2, -1, "many", [0], 0.5])
def test_check_crowds__neither(value):
    assert findings(checked(check_crowds, iscrowd=value)) == [("iscrowd", "error", 1)]


@pytest.mark.parametrize(
    ("value", "bad"), [(0, 0), (False, 0), ("0", 0), (1, 1), (True, 1), ("1", 1)]
)
def test_check_crowds__ignored_objects_are_refused(value, bad):
    assert findings(checked(check_crowds, ignore=value)) == [("ignore", "error", 1)][:bad]


@pytest.mark.parametrize(
    "value", [None, 0, -5, float("nan"), float("inf"), "big", [3], True, 10**400]
)
def test_check_areas__filled_in_by_the_box(value):
    doc = checked(check_areas, area=value)
    _, _, width, height = doc.annotations[2]["bbox"]
    assert doc.annotations[2]["area"] == width * height
    assert findings(doc) == [("area-missing", "note", 1)]


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_check_areas__numbers_are_kept(value):
    doc = checked(check_areas, area=value)
    assert doc.annotations[2]["area"] == 7
    assert findings(doc) == []
    assert doc.changed is isinstance(value, str)


RLE = {"size": [HEIGHT, WIDTH], "counts": [100, 30, HEIGHT * WIDTH - 130]}
COMPRESSED = mask_util.frPyObjects(RLE, HEIGHT, WIDTH)
TEXT = {**COMPRESSED, "counts": COMPRESSED["counts"].decode()}
SQUARE = [3, 4, 9, 4, 9, 9, 3, 9]


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        ([SQUARE], [SQUARE]),
        (SQUARE, [SQUARE]),
        ([SQUARE, [1, 2, 3, 4]], [SQUARE]),
        (RLE, RLE),
        ([RLE], RLE),
        (TEXT, TEXT),
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_check_masks__what_has_a_meaning_stays(outline, expected, wanted):
    doc = checked(check_masks, wanted, segmentation=outline)
    assert doc.annotations[2]["segmentation"] == expected
    assert (findings(doc), doc.kept.all()) == ([], True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300, None, "9", True, [3]])
@pytest.mark.parametrize("rest", [[], [[3, 4]]])
def test_check_masks__numbers_of_polygons(bad, rest):
    outline = [[3, 4, 9, 4, bad, 9], *rest]
    assert checked(check_masks, False, segmentation=outline).kept.all()
    doc = checked(check_masks, True, segmentation=outline)
    assert findings(doc) == [("mask-form", "warning", 1)]
    assert np.flatnonzero(~doc.kept).tolist() == [2]


@pytest.mark.parametrize("seed", range(20))
def test_check_masks__compressed_run_lengths_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    mask = np.asfortranarray(rng.random((HEIGHT, WIDTH)) < rng.random() ** 3, dtype=np.uint8)
    mask[:, : 5 * seed] = 0
    text = mask_util.encode(mask)["counts"].decode()
    for counts, good in ((text, 1), (text[:-1], 0), (text + "1", 0), ("~" + text, 0)):
        outline = {"size": [HEIGHT, WIDTH], "counts": counts}
        assert checked(check_masks, True, segmentation=outline).kept.all() == good


@pytest.mark.parametrize(
    "outline",
    [
        [[3, 4, 9, 9]],
        [3, 4, 9, 9],
        [[3, 4, 9, 4, 9]],
        [RLE, RLE],
        "text",
        {**RLE, "size": [WIDTH, HEIGHT]},
        {**RLE, "counts": [5]},
        {**RLE, "counts": [-1, HEIGHT * WIDTH + 1]},
        {"counts": [5]},
        [],
        None,
    ],
)
def test_check_masks__others_matter_where_masks_are_wanted(outline):
    doc = checked(check_masks, False, segmentation=outline)
    assert findings(doc) == []
    assert not doc.annotations[2].get("segmentation")
    assert doc.kept.all()
    doc = checked(check_masks, True, segmentation=outline)
    assert findings(doc) == [("mask-form", "warning", 1)]
    assert "annotation 703" in doc.findings[0].message
    assert np.flatnonzero(~doc.kept).tolist() == [2]


def test_check_masks__wanted_and_none_there():
    doc = document(lambda c: [a.pop("segmentation") for a in c["annotations"]])
    check_image_ids(doc)
    check_masks(doc, True)
    assert findings(doc) == [("no-masks", "error", 1)]


def test_compressed__is_the_same_region():
    np.testing.assert_array_equal(mask_util.decode(compressed(RLE)), mask_util.decode(TEXT))
    assert compressed([SQUARE]) == [SQUARE]


SIZE = [HEIGHT, WIDTH]


@pytest.mark.parametrize(
    "outline",
    [
        [[0, 0, 1e8, 0, 1e8, 1e8]],  # pycocotools ends by a signal
        [[0, 0, 10**400, 0, 1, 1]],
        [[float(i // 2 % 2 * 60) for i in range(200_000)]],
        [["1", "2", "3", "4", "5", "6"]],
        {"size": SIZE, "counts": "o" * 1000},
        {"size": SIZE, "counts": "P" * 20 + "0"},
        {"size": [10**9, 10**9], "counts": [10**18]},
    ],
    ids=["far", "huge", "zigzag", "texts", "endless", "padded", "larger"],
)
def test_check_masks__outlines_that_take_more_than_a_picture(outline):
    doc = checked(check_masks, True, segmentation=outline)
    assert findings(doc) == [("mask-form", "warning", 1)]
    assert "segmentation" not in doc.annotations[2]
    assert not doc.kept[2]


def test_check_masks__sizes_become_integers():
    runs = [5, HEIGHT * WIDTH - 5]
    sizes = [float(side) for side in SIZE]
    doc = checked(check_masks, True, segmentation={"size": sizes, "counts": runs})
    outline = doc.annotations[2]["segmentation"]
    assert [type(side) for side in outline["size"]] == [int, int]
    assert mask_util.area(compressed(outline)) == runs[1]


def test_check_masks__long_outlines_of_a_picture_stay():
    corners = [float(value) for i in range(5000) for value in (i % WIDTH, i % 2 * HEIGHT)]
    doc = checked(check_masks, True, segmentation=[corners])
    assert doc.annotations[2]["segmentation"] == [corners]
