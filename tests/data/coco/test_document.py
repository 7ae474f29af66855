import numpy as np
import pytest

from detrex.data.coco.document import Document, listed, shorten
from detrex.errors import DataError
from tests.reference.annotation_files import document


def test_report__one_line_with_file_count_record_and_cure():
    doc = document()
    doc.image_index[:] = 0
    doc.annotations[2]["bbox"] = [1, float("nan"), None, "a\nb"]
    doc.report("error", "kind", "annotations", [2, 4], "the box is bad", "mend it", ["bbox"])
    (finding,) = doc.findings
    assert (finding.file, finding.kind, finding.count) == ("train.json", "kind", 2)
    assert finding.message == (
        "train.json: in 2 of 13 annotations the box is bad (first: annotation 703 of image 501 "
        "'train0.png', 97 x 61 pixels, bbox [1, NaN, null, \"a\\nb\"]): mend it."
    )
    assert np.flatnonzero(~doc.kept).tolist() == [2, 4]


def test_report__nothing_without_records_and_nothing_left_out_by_a_warning():
    doc = document()
    doc.report("error", "kind", "images", [], "", "")
    doc.report("warning", "kind", "annotations", [1], "is odd", "it was mended")
    assert [finding.severity for finding in doc.findings] == ["warning"]
    assert doc.kept.all()


def test_name_of__by_place_where_there_is_no_id():
    doc = document()
    del doc.annotations[3]["id"], doc.images[1]["id"]
    assert doc.name_of("annotations", 3) == "annotations[3] of image 502"
    assert doc.name_of("images", 1) == "images[1] 'train1.png'"
    assert doc.name_of("categories", 0) == "category 1 'Kreis'"


def test_raise_errors__first_error_and_how_many_more():
    doc = document()
    doc.tell("warning", "w", "odd", "mended")
    doc.raise_errors()
    doc.tell("error", "a", "wrong", "mend it")
    doc.tell("error", "b", "wrong, too", "mend it")
    with pytest.raises(DataError, match=r"^train.json: wrong: mend it\. \(1 more of other kinds"):
        doc.raise_errors()


@pytest.mark.parametrize("has_annotations", [True, False])
def test_content__kept_annotations_and_the_rest(has_annotations):
    rows = [{"id": 1}, {"id": 2}]
    doc = Document("f", [{"id": 5}], rows, [], {"info": "x"}, has_annotations=has_annotations)
    doc.kept[0] = False
    expected = {"info": "x", "images": [{"id": 5}], "categories": []}
    assert doc.content() == expected | ({"annotations": rows[1:]} if has_annotations else {})


def test_shorten_and_listed():
    assert len(shorten("x" * 900)) == 60
    assert shorten(None) == "null"
    assert listed(["a", 2, "c"], limit=2) == "'a', 2 and 1 more"


@pytest.mark.parametrize("value", ["\ud800", {"a": "\ud800"}, [[]] * 10**6, "x" * 10**6])
def test_shorten__can_be_written(value):
    text = shorten(value)
    text.encode()
    assert len(text) <= 60


def test_shorten__nested_deeply():
    value = []
    for _ in range(5000):
        value = [value]
    assert shorten(value) in ("a list", "[" * 57 + "...")  # as deep as this Python writes
