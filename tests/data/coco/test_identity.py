import numpy as np
import pytest

from detrex.data.coco.identity import check_annotation_ids, check_category_ids, check_image_ids
from tests.reference.annotation_files import content, document

ORIGINAL = [annotation["image_id"] for annotation in content()["annotations"]]


def kinds(doc):
    return [(finding.kind, finding.severity) for finding in doc.findings]


def set_ids(part, key, new_id, only=slice(None)):
    """Change ids of images or categories, or references to them."""

    def change(content_):
        for record in content_[part][only]:
            record[key] = new_id(record[key])

    return change


def test_check_image_ids__right_ones_are_left_alone():
    doc = document()
    check_image_ids(doc)
    assert (doc.findings, doc.changed, doc.images) == ([], False, content()["images"])
    assert [doc.images[i]["id"] for i in doc.image_index] == ORIGINAL


@pytest.mark.parametrize(
    ("part", "key", "new_id"),
    [
        ("annotations", "image_id", str),
        ("annotations", "image_id", float),
        ("annotations", "image_id", "{:012d}".format),
        ("images", "id", str),
        ("images", "id", float),
    ],
)
@pytest.mark.parametrize("only", [slice(None), slice(2)])
def test_check_image_ids__numbers_written_otherwise_are_the_same(part, key, new_id, only):
    doc = document(set_ids(part, key, new_id, only))
    check_image_ids(doc)
    assert [image["id"] for image in doc.images] == [501, 502, 503, 504, 505]
    assert [annotation["image_id"] for annotation in doc.annotations] == ORIGINAL
    assert [severity for _, severity in kinds(doc)] == ["warning"]
    assert doc.changed


def test_check_image_ids__names_throughout_stay():
    def change(content_):
        set_ids("images", "id", "{}.jpg".format)(content_)
        set_ids("annotations", "image_id", "{}.jpg".format)(content_)

    doc = document(change)
    check_image_ids(doc)
    assert (doc.findings, doc.changed) == ([], False)
    assert doc.images[doc.image_index[-1]]["id"] == "505.jpg"


@pytest.mark.parametrize("bad", [None, "a.jpg", True, [1], {"a": 1}, float("nan"), 1.5])
def test_check_image_ids__no_id(bad):
    doc = document(set_ids("images", "id", lambda _: bad, slice(1, 2)))
    check_image_ids(doc)
    assert kinds(doc)[0] == ("images-id-type", "error")
    doc = document(set_ids("annotations", "image_id", lambda _: bad, slice(1, 2)))
    check_image_ids(doc)
    assert kinds(doc) == [("unknown-image", "error")]
    assert "annotation 702" in doc.findings[0].message


def test_check_image_ids__two_images_of_one_id():
    doc = document(set_ids("images", "id", lambda _: 501, slice(1, 2)))
    check_image_ids(doc)
    message = doc.findings[0].message
    assert "image id 501 stands for 'train0.png', 'train1.png'" in message
    assert kinds(doc)[0] == ("duplicate-image-id", "error")


def test_check_image_ids__one_image_twice_is_kept_once():
    doc = document(lambda c: c["images"].insert(1, dict(c["images"][0])))
    check_image_ids(doc)
    assert kinds(doc) == [("image-twice", "warning")]
    assert doc.images == content()["images"]
    assert [doc.images[i]["id"] for i in doc.image_index] == ORIGINAL


@pytest.mark.parametrize("only", ["categories", "annotations", "both"])
@pytest.mark.parametrize("new_id", [str, float, "{:03d}".format])
def test_check_category_ids__numbers_written_otherwise(only, new_id):
    def change(content_):
        for part, key in (("categories", "id"), ("annotations", "category_id")):
            if only in (part, "both"):
                set_ids(part, key, new_id)(content_)

    doc = document(change)
    check_category_ids(doc)
    assert doc.categories == content()["categories"]
    expected = [a["category_id"] for a in content()["annotations"]]
    assert [a["category_id"] for a in doc.annotations] == expected
    assert {severity for _, severity in kinds(doc)} == {"warning"}


def test_check_category_ids__names_are_numbered():
    def change(content_):
        set_ids("categories", "id", lambda i: "cab"[i - 1])(content_)
        set_ids("annotations", "category_id", lambda i: "cab"[i - 1])(content_)

    doc = document(change)
    check_category_ids(doc)
    assert [c["id"] for c in doc.categories] == [3, 1, 2]
    expected = [[3, 1, 2][a["category_id"] - 1] for a in content()["annotations"]]
    assert [a["category_id"] for a in doc.annotations] == expected


@pytest.mark.parametrize("bad", [99, None, "Kreis", [1]])
def test_check_category_ids__unknown(bad):
    doc = document(set_ids("annotations", "category_id", lambda _: bad, slice(3, 5)))
    check_category_ids(doc)
    (finding,) = doc.findings
    assert (finding.kind, finding.severity, finding.count) == ("unknown-category", "error", 2)
    assert "annotation 704" in finding.message


def test_check_category_ids__twice():
    doc = document(set_ids("categories", "id", lambda _: 1, slice(1, 2)))
    check_category_ids(doc)
    assert "category id 1 stands for 'Kreis', 'Fläche'" in doc.findings[0].message


def renumbered(change):
    doc = document(change)
    check_image_ids(doc)
    check_annotation_ids(doc)
    return doc


@pytest.mark.parametrize(
    ("new_id", "kind", "count"),
    [
        (lambda i: i - 701, "annotation-id-below-1", 1),
        (lambda i: -i, "annotation-id-below-1", 13),
        (lambda i: None, "annotation-id-type", 13),
        (lambda i: str(i) if i > 706 else i, "annotation-id-type", 7),
        (lambda i: 701 + i % 6, "duplicate-annotation-id", 13),
        (lambda i: str(i % 6), "annotation-id-type", 13),
    ],
)
def test_check_annotation_ids__are_numbered_anew(new_id, kind, count):
    doc = renumbered(set_ids("annotations", "id", new_id))
    assert [a["id"] for a in doc.annotations] == list(range(1, 14))
    assert doc.findings[0].kind == kind
    assert doc.findings[0].count == count
    assert doc.changed
    assert doc.kept.all()


def test_check_annotation_ids__right_ones_stay():
    doc = renumbered(None)
    assert [a["id"] for a in doc.annotations] == list(range(701, 714))
    assert not doc.changed


def test_check_annotation_ids__an_object_twice_is_kept_once():
    def change(content_):
        content_["annotations"].insert(1, dict(content_["annotations"][0]))

    doc = renumbered(change)
    assert kinds(doc) == [("annotation-twice", "warning")]
    assert np.flatnonzero(~doc.kept).tolist() == [1]


@pytest.mark.parametrize("part", ["images", "categories"])
def test_check_ids__beyond_what_floats_tell_apart(part):
    doc = document(set_ids(part, "id", lambda number: number + 2**53, slice(1)))
    check_image_ids(doc)
    check_category_ids(doc)
    assert (f"{part}-id-type", "error") in kinds(doc)


def test_check_annotation_ids__beyond_what_floats_tell_apart():
    doc = document(set_ids("annotations", "id", lambda _: 10**400, slice(1)))
    check_image_ids(doc)
    check_annotation_ids(doc)
    assert doc.annotations[0]["id"] == 1
    assert doc.changed
