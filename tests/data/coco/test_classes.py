import pytest

from detrex.data.coco.classes import align, check_names, class_names
from detrex.data.coco.identity import check_image_ids
from tests.reference.annotation_files import NAMES, content, document


def renamed(*names):
    def change(content_):
        for category, name in zip(content_["categories"], names, strict=True):
            category["name"] = name

    return change


def aligned(change, classes):
    doc = document(change)
    check_image_ids(doc)
    align(doc, classes, "train.json")
    return doc


def objects(doc):
    names = {category["id"]: category["name"] for category in doc.categories}
    return [names[annotation["category_id"]] for annotation in doc.kept_annotations()]


EXPECTED = [NAMES[annotation["category_id"] - 1] for annotation in content()["annotations"]]


def test_check_names__numbers_are_texts():
    doc = document(renamed(0, "1", 2))
    check_names(doc)
    assert class_names(doc) == ["0", "1", "2"]
    assert [(f.severity, f.count) for f in doc.findings] == [("warning", 2)]


def test_check_names__blanks_around_are_taken_away():
    doc = document(renamed(" a", "b", "c d\t"))
    check_names(doc)
    assert class_names(doc) == ["a", "b", "c d"]
    assert [(f.kind, f.count) for f in doc.findings] == [("category-name-space", 2)]
    assert doc.changed


@pytest.mark.parametrize("name", [None, "", " ", ["a"], 1.5, True])
def test_check_names__none(name):
    doc = document(renamed("a", name, "b"))
    check_names(doc)
    assert [(f.kind, f.severity) for f in doc.findings] == [("category-name", "error")]


@pytest.mark.parametrize("names", [("a", "b", "a"), (1, "b", "1")])
def test_check_names__equal_ones(names):
    doc = document(renamed(*names))
    check_names(doc)
    assert f"2 categories are named '{names[2]}' (ids 1, 3)" in doc.findings[-1].message


def test_check_names__no_categories():
    doc = document(lambda c: c["categories"].clear())
    check_names(doc)
    assert doc.findings[0].kind == "no-categories"


def test_align__equal_names_in_order_keep_their_ids():
    def change(content_):
        for record in content_["categories"]:
            record["id"] = record["id"] * 7 - 9
        for record in content_["annotations"]:
            record["category_id"] = record["category_id"] * 7 - 9

    doc = aligned(change, NAMES)
    assert (doc.findings, doc.changed) == ([], False)
    assert [category["id"] for category in doc.categories] == [-2, 5, 12]


@pytest.mark.parametrize(
    "classes", [NAMES[::-1], (NAMES[1], "new", NAMES[2], NAMES[0]), ("new", *NAMES)]
)
def test_align__by_name(classes):
    doc = aligned(None, classes)
    assert class_names(doc) == list(classes)
    assert objects(doc) == EXPECTED
    assert doc.changed
    assert [(f.kind, f.severity) for f in doc.findings] == [("class-order", "warning")]


def test_align__class_without_objects_is_taken_away():
    doc = aligned(lambda c: c["categories"].insert(0, {"id": 0, "name": "none"}), NAMES)
    assert class_names(doc) == list(NAMES)
    assert objects(doc) == EXPECTED
    assert "without 'none'" in doc.findings[0].message


def test_align__strange_class_with_objects_lists_both_sides():
    doc = aligned(renamed("kreis", NAMES[1], "triangle"), NAMES)
    (finding,) = doc.findings
    assert finding.severity == "error"
    for part in ("objects of 'kreis', which train.json", "only there: 'Kreis'", "mean 'Kreis'"):
        assert part in finding.message


def test_check_names__half_a_character():
    doc = document(lambda content: content["categories"][0].update(name="\ud800"))
    check_names(doc)
    assert [(f.kind, f.severity) for f in doc.findings] == [("category-name", "error")]
    doc.findings[0].message.encode()
