import pytest

from detrex.errors import DataError
from detrex.project.yolo import find_yolo, is_yolo, read_yolo
from tests.project.labelled import boxes_of, naive_yolo, picture, yolo

pytest.importorskip("supervision")

BOX = "0 0.5 0.5 0.25 0.2\n"
OUTLINE = "1 0.1 0.1 0.6 0.1 0.6 0.9 0.2 0.7\n"


def same(found, expected):
    assert found.keys() == expected.keys()
    for file, rows in expected.items():
        assert [name for name, _ in found[file]] == [name for name, _ in rows]
        for (_, box), (_, wanted) in zip(found[file], rows, strict=True):
            assert box == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".Jpeg"])
def test_read_yolo__is_what_a_naive_reader_gives(tmp_path, suffix):
    labels = {
        "train/a": BOX + OUTLINE,
        "train/b": OUTLINE,
        "train/deep/a": "1 0.3 0.4 0.1 0.7\n\n",
        "train/empty": "",
        "train/none": None,
        "val/a": BOX,
    }
    yolo(tmp_path, labels, suffix=suffix)
    data = read_yolo(tmp_path)
    expected = naive_yolo(tmp_path, ("cat", "dog"))
    for split in ("train", "val"):
        inside = {file: rows for file, rows in expected.items() if f"/{split}/" in file}
        same(boxes_of(data.parts[split]), inside)
    (note,) = data.notes
    assert note.startswith("1 of 6 pictures have no label file")


def test_read_yolo__outline_keeps_its_corners(tmp_path):
    part = read_yolo(yolo(tmp_path, {"a": OUTLINE + BOX})).parts["train"]
    outline, box = part.content["annotations"]
    corners = [4, 3, 24, 3, 24, 27, 8, 21]
    assert outline["segmentation"][0] == pytest.approx(corners)
    x, y = corners[::2], corners[1::2]
    area = sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(4)) / 2
    assert outline["area"] == pytest.approx(abs(area))
    assert "segmentation" not in box


def test_read_yolo__picture_that_exif_turns(tmp_path):
    yolo(tmp_path, {"a": BOX})
    (tmp_path / "images" / "a.png").unlink()
    picture(tmp_path / "images" / "a.jpg", orientation=6)
    content = read_yolo(tmp_path).parts["train"].content
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (30, 40)
    assert content["annotations"][0]["bbox"] == pytest.approx([11.25, 16, 7.5, 8])


def test_read_yolo__pose_and_scores_are_boxes(tmp_path):
    yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2 0.9\n0 0.5 0.5 0.25 0.2 0.4 0.4 2 0.6 0.6 1"})
    (tmp_path / "data.yaml").write_text("names: [cat]\nkpt_shape: [2, 3]\n")
    first, second = read_yolo(tmp_path).parts["train"].content["annotations"]
    assert first["bbox"] == pytest.approx([16, 12, 8, 6], abs=1e-4)
    assert second["bbox"] == pytest.approx([15, 12, 10, 6], abs=1e-4)
    assert "segmentation" not in second


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0.5 0.5 0.2", "has 4 values"),
        ("0 0.5 0.5 0.2 0.2 0.1 0.1 0.3", "has 8 values"),
        ("0 0.5 0.5 0.2 x", "expected numbers"),
        ("0 0.5 nan 0.2 0.2", "expected numbers"),
        ("cat 0.5 0.5 0.2 0.2", "expected numbers"),
        ("2 0.5 0.5 0.2 0.2", "has the class 2, but the 2 names of .* stand for 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "has the class -1"),
        ("0.5 0.5 0.5 0.2 0.2", "has the class 0.5"),
        ("0 20 15 8 6", "expected shares"),
        ("0 0.5 0.5 -0.01 0.2", "negative"),
    ],
)
def test_read_yolo__bad_line_is_named(tmp_path, line, told):
    yolo(tmp_path, {"a": BOX, "b": f"{BOX}\n{line}\n"})
    with pytest.raises(DataError, match=rf"b\.txt, line 3, .*{told}") as error:
        read_yolo(tmp_path)
    assert len(str(error.value)) < 500


def test_read_yolo__classes_written_as_fractions_and_repeated_lines(tmp_path):
    data = read_yolo(yolo(tmp_path, {"a": "1.0 0.5 0.5 0.2 0.2\n" * 3}))
    (entry,) = data.parts["train"].content["annotations"]
    assert entry["category_id"] == 1
    assert "2 lines are there twice" in data.notes[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("names: {0: cat, 2: dog}", "without a gap"),
        ("names: {a: cat}", "expected 0, 1, 2"),
        ("names: []", "expected the names"),
        ("names: [cat]\nnc: 2", "nc=2, but 1 names"),
        ("names: [cat", "line 1, is no YAML"),
        ("- cat names:", "holds no keys"),
        ("names: [cat]\nval: 3", "has val=3"),
        ("names: [cat]\ntrain: nowhere", "names 'nowhere' for train, which is not there"),
        ("names: [cat]\nkpt_shape: 5", "kpt_shape=5"),
        ("names:\n- cat\n-\n", "has '' for the name of class 1"),
        ("names: [{0: cat}]", "for the name of class 0"),
        ("names: [cat]\ntrain: train/images", "names 'train/images' for train, which is not there"),
    ],
)
def test_find_yolo__bad_yaml_is_named(tmp_path, text, told):
    yolo(tmp_path, {"a": BOX})
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"data\.yaml.*{told}"):
        find_yolo(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "path: {root}\ntrain: images/train\nval: images/val\n",
        "train: ../images/train\nval: ../images/val\ntest: ../images/test\n",
        "path: /elsewhere/data\ntrain: images/train\nval: [images/val]\n",
        "train: train.txt\nval: images/val\n",
        "",
    ],
)
def test_find_yolo__names_of_folders_that_people_write(tmp_path, text):
    yolo(tmp_path, {"train/a": BOX, "val/b": BOX}, names=None)
    (tmp_path / "train.txt").write_text("./images/train/a.png\n\n" if "train.txt" in text else "")
    names = "names: {1: dog, 0: cat}\n"
    (tmp_path / "data.yaml").write_text(names + text.format(root=tmp_path))
    folder = find_yolo(tmp_path)
    assert folder.names == ["cat", "dog"]
    found = {split: [p.name for p in pictures] for split, pictures in folder.splits.items()}
    assert found == {"train": ["a.png"], "val": ["b.png"]}


@pytest.mark.parametrize(
    "line",
    ["data/images/train/a.png", "/elsewhere/set/images/train/a.png", "D:\\x\\images\\train\\a.png"],
)
@pytest.mark.parametrize("yaml", ["train: train.txt\nval: images/val\n", ""])
def test_find_yolo__lists_that_were_written_elsewhere(tmp_path, line, yaml):
    yolo(tmp_path, {"train/a": BOX, "train/b": BOX, "val/a": BOX}, names=None)
    (tmp_path / "data.yaml").write_text(f"names: [cat]\n{yaml}")
    (tmp_path / "train.txt").write_text(f"{line}\r\n")
    train = find_yolo(tmp_path).splits["train"]
    assert train == [tmp_path / "images" / "train" / "a.png"]
    (tmp_path / "train.txt").write_text("elsewhere/a.png\n")
    with pytest.raises(
        DataError, match=r"train\.txt, line 1, names elsewhere/a\.png, which is not"
    ):
        find_yolo(tmp_path)


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "_darknet.labels"])
def test_find_yolo__names_beside_the_pictures_of_a_part(tmp_path, name):
    for split in ("train", "valid"):
        (picture(tmp_path / split / "a.jpg").with_suffix(".txt")).write_text(BOX)
        (tmp_path / split / name).write_text("cat\ndog\n")
    folder = find_yolo(tmp_path)
    assert (folder.names, list(folder.splits)) == (["cat", "dog"], ["train", "val"])


def test_find_yolo__names_are_taken_as_they_are_written(tmp_path):
    yolo(tmp_path, {"a": BOX}, names=None)
    (tmp_path / "data.yaml").write_text("names: [yes, no, 007, 2.50, 'a b ', null]\nnc: 6\n")
    assert find_yolo(tmp_path).names == ["yes", "no", "007", "2.50", "a b", "null"]


def test_find_yolo__flat_with_a_list_of_names(tmp_path):
    for name in ("b", "a"):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("cat\r\ndog \n\n")
    assert is_yolo(tmp_path)
    folder = find_yolo(tmp_path)
    assert folder.names == ["cat", "dog"]
    assert [p.name for p in folder.splits["train"]] == ["a.png", "b.png"]
    assert len(read_yolo(tmp_path).parts["train"].content["annotations"]) == 2


@pytest.mark.parametrize(
    ("names", "told"),
    [(None, "does not say what its classes are called"), ("cat\n\ndog\n", r"line 2, is empty")],
)
def test_find_yolo__no_names(tmp_path, names, told):
    yolo(tmp_path, {"a": BOX}, names=None)
    if names:
        (tmp_path / "classes.txt").write_text(names)
    with pytest.raises(DataError, match=told):
        find_yolo(tmp_path)


def test_read_yolo__same_pictures_to_train_and_validate(tmp_path):
    yolo(tmp_path, {"a": BOX, "b": BOX})
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: images\nval: images\n")
    data = read_yolo(tmp_path)
    assert list(data.parts) == ["train"]
    assert "the same pictures" in data.notes[0]


@pytest.mark.parametrize(
    ("labels", "told"),
    [({"a": None}, "no label file for any, such as a.txt"), ({}, "holds no pictures")],
)
def test_read_yolo__nothing_to_read(tmp_path, labels, told):
    yolo(tmp_path, labels)
    with pytest.raises(DataError, match=told):
        read_yolo(tmp_path)


def test_read_yolo__two_pictures_with_one_label_file(tmp_path):
    yolo(tmp_path, {"a": BOX})
    picture(tmp_path / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png have one label file, .*a\.txt: rename"):
        read_yolo(tmp_path)


def test_read_yolo__text_of_another_encoding_and_stray_files(tmp_path):
    yolo(tmp_path, {"a": BOX, "b": "\ufeff" + BOX})
    (tmp_path / "labels" / "gone.txt").write_text(BOX)
    assert "1 text files beside the labels belong to no picture" in read_yolo(tmp_path).notes[-1]
    (tmp_path / "labels" / "a.txt").write_bytes(b"0 0.5 0.5\xff 0.1 0.1")
    with pytest.raises(DataError, match=r"a\.txt is no text in UTF-8 \(byte 9\)"):
        read_yolo(tmp_path)
