import json
from pathlib import Path

import pytest

from detrex.errors import DataError
from detrex.project.coco_files import is_coco, read_coco
from tests.project.labelled import coco, picture


def laid_out(root, files, pictures):
    """Write annotations that all name ``a.png``, and that picture into some folders."""
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))
    for folder in pictures:
        picture(root / folder / "a.png")


@pytest.mark.parametrize(
    ("files", "pictures"),
    [
        (
            {
                "train": "annotations/instances_train2017.json",
                "val": "annotations/instances_val2017.json",
            },
            {"train": "train2017", "val": "val2017"},
        ),
        (
            {"train": "annotations/instances_train.json", "val": "annotations/instances_val.json"},
            {"train": "images/train", "val": "images/val"},
        ),
        (
            {"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"},
            {"train": "train", "val": "valid"},
        ),
        (
            {"train": "train/annotations.json", "val": "val/annotations.json"},
            {"train": "train/images", "val": "val/images"},
        ),
        ({"train": "train.json", "val": "val.json"}, {"train": "images", "val": "images"}),
        ({"train": "labels.json"}, {"train": "data"}),
        ({"train": "result.json"}, {"train": "."}),
        ({"train": "annotations/instances_default.json"}, {"train": "images/default"}),
        ({"train": "annotations/TRAIN.JSON"}, {"train": "images"}),
    ],
)
def test_read_coco__finds_files_and_pictures(tmp_path, files, pictures):
    laid_out(tmp_path, files.values(), pictures.values())
    assert is_coco(tmp_path)
    data = read_coco(tmp_path)
    assert {split: part.json_file for split, part in data.parts.items()} == {
        split: tmp_path / name for split, name in files.items()
    }
    for split, folder in pictures.items():
        assert data.parts[split].image_root.resolve() == (tmp_path / folder).resolve()


def test_read_coco__other_annotations_of_coco_and_other_json(tmp_path):
    names = ["instances_train.json", "captions_train.json", "instances_val.json"]
    names += ["image_info_test.json", "image_info_test-dev.json", "image_info_unlabeled.json"]
    laid_out(tmp_path, [f"annotations/{name}" for name in names], ["images"])
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "list.json").write_text('["images"]')
    data = read_coco(tmp_path)
    assert [p.json_file.name for p in data.parts.values()] == names[:3:2]
    assert len(data.notes) == 2
    assert all(note.endswith(".json, for testing, is left alone") for note in data.notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_is_coco__in_any_encoding_of_json(tmp_path, encoding):
    file = coco(tmp_path)
    file.write_text(file.read_text(), encoding=encoding)
    assert is_coco(tmp_path)
    assert len(read_coco(tmp_path).parts["train"].document.images) == 4


def test_is_coco__lists_behind_long_others(tmp_path):
    file = coco(tmp_path)
    content = json.loads(file.read_text())
    first = {"categories": content.pop("categories"), "info": {"text": "x" * 10_000}}
    file.write_text(json.dumps(first | content))
    assert is_coco(tmp_path)
    file.write_text(json.dumps(first))
    assert not is_coco(tmp_path), "names of classes, such as lie beside labels of YOLO"


def test_read_coco__two_files_for_one_use(tmp_path):
    laid_out(tmp_path, ["a.json", "b.json"], ["."])
    with pytest.raises(DataError, match=r"2 files could hold the annotations for train \(.*a\.j"):
        read_coco(tmp_path)


def test_read_coco__pictures_elsewhere(tmp_path):
    laid_out(tmp_path / "x", ["a.json"], [])
    with pytest.raises(DataError, match=r"pictures such as a\.png, .* by --images") as error:
        read_coco(tmp_path / "x" / "a.json")
    assert len(str(error.value).replace(str(tmp_path), "")) < 300
    file = picture(tmp_path / "far" / "a.png")
    found = read_coco(tmp_path / "x" / "a.json", file.parent).parts["train"]
    assert found.image_root == file.parent
    with pytest.raises(DataError, match="not in far: correct the names, or name the folder"):
        read_coco(tmp_path / "x" / "a.json", Path("far"))


def test_read_coco__no_file(tmp_path):
    assert not is_coco(tmp_path)
    with pytest.raises(DataError, match="holds no annotations in COCO's format"):
        read_coco(tmp_path)


def test_read_coco__file_that_is_cut(tmp_path):
    file = coco(tmp_path)
    file.write_text(file.read_text()[:-40])
    with pytest.raises(DataError, match=r"annotations\.json"):
        read_coco(tmp_path)
