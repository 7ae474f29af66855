import pytest

from detrex.errors import ConfigError, DataError
from detrex.project.formats import read_data, recognised
from tests.project.labelled import coco, picture, voc, voc_object, voc_xml, yolo

pytest.importorskip("supervision")

BOX = "0 0.5 0.5 0.25 0.2\n"
XML = voc_xml(voc_object("cat", (1, 1, 40, 30)))


@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("coco", coco),
        ("yolo", lambda root: yolo(root, {"a": BOX})),
        ("voc", lambda root: voc(root, {"a": XML})),
    ],
)
def test_recognised__by_what_lies_there(tmp_path, form, write):
    write(tmp_path)
    assert recognised(tmp_path) == form
    assert read_data(tmp_path).form == form


def test_recognised__names_of_classes_beside_labels(tmp_path):
    yolo(tmp_path, {"a": BOX})
    (tmp_path / "notes.json").write_text('{"categories": [{"id": 0, "name": "cat"}], "info": {}}')
    assert recognised(tmp_path) == "yolo"


def test_recognised__files(tmp_path):
    yolo(tmp_path, {"a": BOX})
    assert recognised(tmp_path / "data.yaml") == "yolo"
    assert recognised(coco(tmp_path)) == "coco"
    with pytest.raises(DataError, match=r"a\.txt is no file of data that is known"):
        recognised(tmp_path / "labels" / "a.txt")


@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("coco", coco),
        ("yolo", lambda root: yolo(root, {"train/a": BOX, "val/b": BOX})),
        ("voc", lambda root: voc(root, {"a": XML})),
    ],
)
def test_read_data__in_folders_of_an_archive(tmp_path, form, write):
    inner = tmp_path / "a" / "b" / "c" / "d"
    inner.mkdir(parents=True)
    write(inner)
    (tmp_path / "__MACOSX").mkdir()
    before = read_data(inner)
    for _ in range(2):
        data = read_data(tmp_path)
        assert data.form == form
        assert {split: p.image_root for split, p in data.parts.items()} == {
            split: p.image_root for split, p in before.parts.items()
        }
        (tmp_path / "my").mkdir(exist_ok=True)  # a project that was made in the data
        (tmp_path / "my" / "config.py").write_text('"""FCOS, written by `detrex init`."""\n')


def test_recognised__several_or_none(tmp_path):
    picture(tmp_path / "x.png")
    with pytest.raises(DataError, match="is no folder of data that is known: expected COCO"):
        recognised(tmp_path)
    coco(tmp_path)
    yolo(tmp_path, {"a": BOX})
    with pytest.raises(DataError, match="holds COCO's JSON and YOLO's text files: say"):
        recognised(tmp_path)
    assert read_data(tmp_path, form="yolo").form == "yolo"


def test_read_data__validation_from_elsewhere(tmp_path):
    yolo(tmp_path / "a", {"train/a": BOX, "val/b": BOX})
    yolo(tmp_path / "b", {"c": BOX, "d": None}, names=None)
    data = read_data(tmp_path / "a", tmp_path / "b")
    assert [len(part.content["images"]) for part in data.parts.values()] == [1, 2]
    assert data.parts["val"].content["categories"] == data.parts["train"].content["categories"]
    data = read_data(coco(tmp_path / "c"), tmp_path / "b")
    assert [c["name"] for c in data.parts["val"].content["categories"]] == ["cat", "dog"]


@pytest.mark.parametrize("splits", [("train", "test"), ("val",), ("test",)])
def test_read_data__other_parts(tmp_path, splits):
    yolo(tmp_path, {f"{split}/a": BOX for split in splits})
    data = read_data(tmp_path)
    assert list(data.parts) == (["train", "val"] if len(splits) > 1 else ["train"])
    assert any("that for testing is taken" in note for note in data.notes) == (len(splits) > 1)


@pytest.mark.parametrize(
    ("keywords", "told"),
    [({"form": "mmdet"}, "the format is auto, coco, yolo, voc"), ({}, "does not exist in")],
)
def test_read_data__wrong_words(tmp_path, keywords, told):
    with pytest.raises(ConfigError, match=told):
        read_data(tmp_path / "gone", **keywords)
