import os
from pathlib import Path

import pytest

from detrex.errors import DataError
from detrex.project.parts import (
    Labels,
    by_split,
    label_file,
    pictures_below,
    read_text,
    some_below,
    split_of,
)
from tests.project.labelled import picture


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("valid", "val"),
        ("Val", "val"),
        ("my-testing_set/a.json", "test"),
        ("trained/evaluate", ""),
        ("strain", ""),
    ],
)
def test_split_of__goes_by_whole_words(path, split):
    assert split_of(path) == split


def test_pictures_below__all_suffixes_and_sub_folders_once(tmp_path):
    names = ["b.JPG", "a.png", "in/c.jpeg", "notes.txt", ".hidden.png", ".git/d.png"]
    for name in names:
        picture(tmp_path / name)
    (tmp_path / "in" / "circle").symlink_to(tmp_path)
    found = pictures_below(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a.png", "b.JPG", "in/c.jpeg"]
    assert set(some_below(tmp_path, most=1)) < set(found)
    assert by_split(found, tmp_path) == {"train": found}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.png", "a.txt"),
        ("images/train/a.png", "labels/train/a.txt"),
        ("train/images/a.png", "train/labels/a.txt"),
        ("images/images/in/a.png", "images/labels/in/a.txt"),
        ("pictures/a.png", "labels/a.txt"),
        ("train/a.png", "labels/train/a.txt"),
        ("a.b.png", "a.b.txt"),
        ("images/a.b.PNG", "labels/a.b.TXT"),
    ],
)
def test_label_file__where_people_put_it(tmp_path, image, label):
    expected = tmp_path / label
    assert label_file(tmp_path / image, ".txt", ("labels",)) is None
    expected.parent.mkdir(parents=True, exist_ok=True)
    expected.write_text("")
    assert label_file(tmp_path / image, ".txt", ("labels",)) == expected


def test_labels__paths_from_the_folder_of_all(tmp_path):
    labels = Labels()
    labels.add(tmp_path / "x" / "a.png", (40, 30), [{"category_id": 1, "bbox": [1, 2, 3, 4]}])
    labels.add(tmp_path / "y" / "in" / "a.png", (10, 20), [])
    part = labels.part(["cat", "dog"], Path("here"))
    assert part.image_root == tmp_path
    assert [i["file_name"] for i in part.content["images"]] == ["x/a.png", "y/in/a.png"]
    assert part.content["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_read_text__may_not_be_read(tmp_path):
    (tmp_path / "a").touch(mode=0)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "a")
