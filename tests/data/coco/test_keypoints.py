import pytest

from detrex.data.coco.keypoints import check_keypoints, keypoint_names
from detrex.data.coco.records import metadata_of, standard_records
from tests.reference.annotation_files import content, document

NAMES = ["nose", "left_eye", "right_eye"]
POINTS = [11, 7.5, 2, 0, 0, 0, 20, 9, 1]
FORM = ("keypoints-form", "warning", 1)


def checked(wanted=True, names=NAMES, **values):
    """The document after the check, with values in the third annotation."""

    def change(content_):
        for category in content_["categories"]:
            if names:
                category["keypoints"] = list(names)
        for annotation in content_["annotations"]:
            annotation |= {"keypoints": list(POINTS), "num_keypoints": 2}
        content_["annotations"][2].update(values)

    doc = document(change)
    check_keypoints(doc, wanted)
    return doc


def findings(doc):
    return [(f.kind, f.severity, f.count) for f in doc.findings]


@pytest.mark.parametrize("wanted", [True, False])
def test_check_keypoints__right_ones_stay(wanted):
    doc = checked(wanted)
    assert findings(doc) == []
    assert not doc.changed
    assert doc.annotations[2]["keypoints"] == POINTS


BAD = [
    POINTS[:6],
    POINTS + POINTS[:3],
    [*POINTS[:8], 3],
    [*POINTS[:8], 0.5],
    [float("nan"), *POINTS[1:]],
    [float("inf"), *POINTS[1:]],
    ["11", *POINTS[1:]],
    [True, *POINTS[1:]],
    "abc",
    {"nose": [1, 2]},
    7,
    [[11, 7, 2], [0, 0, 0], [20, 9, 1]],
]


@pytest.mark.parametrize("points", BAD)
def test_check_keypoints__bad_ones_count_as_not_labelled(points):
    doc = checked(keypoints=points)
    assert findings(doc) == [FORM]
    assert "not 9 finite numbers" in doc.findings[0].message
    assert doc.changed
    assert doc.kept.all()
    assert doc.annotations[2]["keypoints"] == [0] * 9
    assert doc.annotations[2]["num_keypoints"] == 0


@pytest.mark.parametrize("points", [*BAD, None, []])
def test_check_keypoints__do_not_matter_where_they_are_not_wanted(points):
    doc = checked(False, keypoints=points)
    assert findings(doc) == []
    assert not doc.changed
    assert "keypoints" not in doc.annotations[2]


@pytest.mark.parametrize("points", [None, []])
def test_check_keypoints__missing_ones_are_filled_in(points):
    doc = checked(keypoints=points)
    assert findings(doc) == [("keypoints-missing", "note", 1)]
    assert doc.annotations[2]["keypoints"] == [0] * 9


@pytest.mark.parametrize("number", [None, 3, 0, "2"])
def test_check_keypoints__number_is_counted_anew(number):
    doc = checked(num_keypoints=number)
    assert findings(doc) == [("num-keypoints", "note", 1)]
    assert doc.annotations[2]["num_keypoints"] == 2
    assert doc.changed


def test_check_keypoints__length_is_the_usual_one_where_nothing_names_them():
    doc = checked(names=None, keypoints=POINTS[:6])
    assert findings(doc) == [FORM]
    assert keypoint_names(doc) == []


def test_check_keypoints__none_at_all():
    doc = document()
    check_keypoints(doc, False)
    assert doc.annotations == content()["annotations"]
    check_keypoints(doc, True)
    assert findings(doc) == [("no-keypoints", "error", 1)]


@pytest.mark.parametrize("names", ["nose", [1, 2, 3], ["nose", "right_eye", "left_eye"]])
def test_check_keypoints__categories_must_agree(names):
    def change(content_):
        content_["categories"][0]["keypoints"] = NAMES
        content_["categories"][2]["keypoints"] = names
        content_["annotations"][0].update(keypoints=POINTS, num_keypoints=2)

    doc = document(change)
    check_keypoints(doc, True)
    assert ("keypoint-names", "error", 1) in findings(doc)


def test_keypoints__reach_records_and_metadata():
    doc = checked()
    metadata = metadata_of(doc)
    assert metadata["keypoint_names"] == NAMES
    assert metadata["keypoint_flip_map"] == [("left_eye", "right_eye")]
    assert "keypoint_names" not in metadata_of(document())
    doc.image_index[:] = 0
    points = standard_records(doc, "images")[0]["annotations"][2]["keypoints"]
    assert points == [11.5, 8, 2, 0.5, 0.5, 0, 20.5, 9.5, 1]


def test_check_keypoints__numbers_of_miles_count_as_not_labelled():
    doc = checked(keypoints=[10**400, 1, 2] * len(NAMES))
    assert doc.annotations[2]["keypoints"] == [0] * 3 * len(NAMES)
