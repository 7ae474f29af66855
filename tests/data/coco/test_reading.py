import gc
import json
import os

import pytest

from detrex.data.coco.reading import no_garbage_collection, read_document
from detrex.errors import DataError
from tests.reference.annotation_files import content

GOOD = json.dumps(content()).encode()


def file_of(folder, data) -> str:
    path = folder / "train.json"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return str(path)


@pytest.mark.parametrize(
    ("data", "changed"),
    [
        (GOOD, False),
        (b"\xef\xbb\xbf" + GOOD, True),
        (json.dumps(content(), ensure_ascii=False).encode("utf-16"), True),
        (json.dumps({**content(), "info": {}}).encode(), False),
    ],
    ids=["plain", "bom", "utf-16", "info"],
)
def test_read_document__content_whatever_the_encoding(tmp_path, data, changed):
    document = read_document(file_of(tmp_path, data))
    expected = content()
    assert document.images == expected["images"]
    assert document.annotations == expected["annotations"]
    assert document.categories == expected["categories"]
    assert document.changed is changed


def test_read_document__without_annotations_is_a_list_to_test_on(tmp_path):
    bare = content()
    del bare["annotations"]
    document = read_document(file_of(tmp_path, bare))
    assert not document.has_annotations
    assert not document.changed
    document = read_document(file_of(tmp_path, {**bare, "annotations": None}))
    assert not document.has_annotations
    assert document.changed


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "train.json is empty"),
        (GOOD[:-40], r"train.json is cut short: .* at line 1, column \d+"),
        (GOOD[: GOOD.index(b"fil")], r"is cut short: .* at line 1, column \d+"),
        (b"{'images': []}", "is no JSON: .* at line 1, column 2"),
        (GOOD + b"\n" + GOOD, "is no JSON: Extra data at line 2, column 1"),
        (b"\x1f\x8b\x08rest", "is compressed, expected plain JSON"),
        (GOOD.replace(b"Kreis", b"Kr\xe4is"), r"is no UTF-8 text: byte \d+ is 0xe4"),
        (b"[" * 99_999, "is no JSON that can be read"),
        ([{"score": 1}], "top level is a list, expected an object .* seems to hold detections"),
        ("text", 'top level is "?.text"?.*, expected an object'),
        ({}, "has no 'images'.*its entries are none"),
        ({"image": [], "annotations": []}, "has no 'images'.* Did you mean 'image'"),
        ({"images": [], "categories": {}}, r"'categories' is \{\}, expected a list of objects"),
        ({"images": [{}, None]}, r"images\[1\] is null, expected an object"),
        ({**content(), "annotations": [3]}, r"annotations\[0\] is 3, expected an object"),
        ({"images": [], "categories": [], "annotation": []}, "Did you mean 'annotation'"),
        ({"images": [], "annotations": []}, "has no 'categories'"),
    ],
)
def test_read_document__what_is_none_has_one_sentence(tmp_path, data, sentence):
    path = file_of(tmp_path, data)
    with pytest.raises(DataError, match=sentence) as error:
        read_document(path)
    assert path in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_read_document__folder_and_nothing(tmp_path):
    with pytest.raises(DataError, match="is a folder, expected an annotation file"):
        read_document(tmp_path)
    with pytest.raises(DataError, match=r"none\.json does not exist .*DETECTRON2_DATASETS"):
        read_document(tmp_path / "none.json")


def test_no_garbage_collection__is_given_back_after_an_error():
    states = []
    with pytest.raises(KeyError), no_garbage_collection():
        raise KeyError(states.append(gc.isenabled()))
    assert states == [False]
    assert gc.isenabled()


def test_read_document__a_key_twice_is_told(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"images": [], "annotations": [{"id": 1, "id": 2}], "categories": []}')
    document = read_document(file)
    assert document.annotations == [{"id": 2}]
    assert [finding.kind for finding in document.findings] == ["key-twice"]
    assert "1 objects give a key twice, the first 'id': the last value" in (
        document.findings[0].message
    )


def test_read_document__a_list_twice(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"images": [], "annotations": [], "categories": [], "annotations": []}')
    with pytest.raises(DataError, match="'annotations' is given twice"):
        read_document(file)


@pytest.mark.parametrize("name", ["pipe.json", "/dev/zero", "a\0.json", "x" * 300])
def test_read_document__what_is_no_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.json")
    with pytest.raises(DataError, match=r"is no regular file|cannot be read") as info:
        read_document(name)
    assert "\n" not in str(info.value)
