import pytest

from detrex.errors import DataError
from detrex.project.voc import is_voc, read_voc
from tests.project.labelled import boxes_of, picture, voc, voc_object, voc_xml

pytest.importorskip("supervision")

CAT = voc_object("cat", (1, 1, 40, 30))


def test_read_voc__pixels_count_from_1(tmp_path):
    files = {
        "a": voc_xml(CAT + voc_object("ant", (11, 6, 11, 8))),
        "b": voc_xml(voc_object("dog", (2.5, 3, 7, 9.25))),
        "empty": voc_xml(),
        "none": None,
    }
    voc(tmp_path, files)
    assert is_voc(tmp_path)
    data = read_voc(tmp_path)
    part = data.parts["train"]
    assert [c["name"] for c in part.content["categories"]] == ["ant", "cat", "dog"]
    folder = tmp_path / "JPEGImages"
    assert boxes_of(part) == {
        str(folder / "a.jpg"): [("cat", [0, 0, 40, 30]), ("ant", [10, 5, 1, 3])],
        str(folder / "b.jpg"): [("dog", [1.5, 2, 5.5, 7.25])],
        str(folder / "empty.jpg"): [],
        str(folder / "none.jpg"): [],
    }
    assert "1 of 4 pictures have no XML file" in data.notes[0]


def test_read_voc__box_at_0_says_that_pixels_count_from_0(tmp_path):
    data = read_voc(voc(tmp_path, {"a": voc_xml(voc_object("cat", (0, 0, 40, 30)))}))
    ((_, box),) = boxes_of(data.parts["train"])[str(tmp_path / "JPEGImages" / "a.jpg")]
    assert box == [0, 0, 40, 30]
    assert "counts from 0" in data.notes[0] or "count from 0" in data.notes[0]


def test_read_voc__difficult_objects_and_outlines(tmp_path):
    outline = "<polygon><x1>1</x1><y1>1</y1><x2>11</x2><y2>1</y2><x3>11</x3><y3>6</y3></polygon>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    text = voc_object("cat", (1, 1, 10, 5), outline + part)
    text += voc_object("cat", (1, 1, 9, 9), "<difficult>1</difficult>")
    data = read_voc(voc(tmp_path, {"a": voc_xml(text)}))
    first, second = data.parts["train"].content["annotations"]
    assert first["segmentation"] == [[0, 0, 10, 0, 10, 5]]
    assert (first["area"], first["iscrowd"], second["iscrowd"]) == (25, 0, 1)
    assert "1 objects are marked as difficult" in data.notes[0]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train": "a\nb\n", "val": "c\n", "trainval": "a\nb\nc\n"}, {"train": "ab", "val": "c"}),
        ({"trainval": "a  1\nb -1\n", "test": "c\n"}, {"train": "ab", "test": "c"}),
    ],
)
def test_read_voc__lists_of_the_challenge(tmp_path, lists, expected):
    years = ("VOC2007", "VOC2012")
    for year in years:
        voc(tmp_path / year, dict.fromkeys("abc", voc_xml(CAT)))
        folder = tmp_path / year / "ImageSets" / "Main"
        folder.mkdir(parents=True)
        for name, text in lists.items():
            (folder / f"{name}.txt").write_text(text)
    found = {
        split: sorted(image["file_name"] for image in part.content["images"])
        for split, part in read_voc(tmp_path).parts.items()
    }
    assert found == {
        split: [f"{year}/JPEGImages/{stem}.jpg" for year in years for stem in stems]
        for split, stems in expected.items()
    }, "pictures of two folders with one name are two"


@pytest.mark.parametrize("lists", [True, False])
def test_read_voc__masks_of_the_challenge_are_no_photographs(tmp_path, lists):
    voc(tmp_path, {"a": voc_xml(CAT), "b": voc_xml(CAT)})
    for folder in ("SegmentationClass", "SegmentationObject"):
        picture(tmp_path / folder / "a.png")
    if lists:
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    folder = tmp_path / "JPEGImages"
    assert set(boxes_of(read_voc(tmp_path).parts["train"])) == {
        str(folder / "a.jpg"),
        str(folder / "b.jpg"),
    }


def test_read_voc__a_picture_that_is_listed_twice_is_one(tmp_path):
    voc(tmp_path, {"a": voc_xml(CAT), "b": voc_xml(CAT)})
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\na\n")
    images = read_voc(tmp_path).parts["train"].content["images"]
    assert [image["file_name"] for image in images] == ["a.jpg", "b.jpg"]


def test_read_voc__listed_names_with_blanks(tmp_path):
    voc(tmp_path, {"my cat": voc_xml(CAT), "my dog": voc_xml(CAT), "my": voc_xml(CAT)})
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("my cat\nmy dog.jpg\nmy -1\n")
    images = read_voc(tmp_path).parts["train"].content["images"]
    assert [image["file_name"] for image in images] == ["my cat.jpg", "my dog.jpg", "my.jpg"]


def test_read_voc__listed_names_with_folders(tmp_path):
    voc(tmp_path, {"x/a": voc_xml(CAT), "y/a": voc_xml(CAT), "y/b": voc_xml(CAT)})
    file = tmp_path / "ImageSets" / "Main" / "train.txt"
    file.parent.mkdir(parents=True)
    file.write_text("y/a\nJPEGImages/y/b.jpg\n")
    images = read_voc(tmp_path).parts["train"].content["images"]
    assert [image["file_name"] for image in images] == ["a.jpg", "b.jpg"]
    file.write_text("a\n")
    with pytest.raises(DataError, match=r"line 1, names a, of which there are 2 pictures in"):
        read_voc(tmp_path)


def test_read_voc__beside_the_pictures_in_folders_by_use(tmp_path):
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / "a.JPEG")
        (tmp_path / split / "a.xml").write_text(voc_xml(CAT))
    data = read_voc(tmp_path)
    assert {s: len(p.content["annotations"]) for s, p in data.parts.items()} == {
        "train": 1,
        "val": 1,
    }
    assert data.notes == ["1 pictures for testing are left alone"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<annotation>\n<object>", r"a\.xml, line 2, is no XML"),
        ("<html></html>", r"a\.xml begins with <html>"),
        (voc_xml("<object><name>cat</name></object>"), r"a\.xml cannot be read"),
        (voc_xml(voc_object("cat", ("x", 1, 2, 3))), r"a\.xml cannot be read"),
        (voc_xml("<object><bndbox/></object>"), r"a\.xml cannot be read"),
        (voc_xml(CAT, (30, 40)), "for a picture of 30 x 40 pixels .* EXIF"),
        (voc_xml(CAT, (80, 60)), "for a picture of 80 x 60 pixels .* put the picture there"),
        (voc_xml(CAT, ("wide", 1)), "expected pixels"),
        (voc_xml(voc_object("cat", (1, 1, 2, 2), "<polygon><x1>3</x1></polygon>")), "polygon"),
        (
            '<!DOCTYPE a [<!ENTITY b "c">]><annotation><object><name>&b;</name></object>'
            "</annotation>",
            r"a\.xml cannot be read as XML",
        ),
        (voc_xml(), "none names an object"),
    ],
)
def test_read_voc__bad_file_is_named(tmp_path, text, told):
    with pytest.raises(DataError, match=told) as error:
        read_voc(voc(tmp_path, {"a": text}))
    assert len(str(error.value)) < 500


def test_read_voc__list_that_names_no_picture(tmp_path):
    voc(tmp_path, {"a": voc_xml(CAT)})
    folder = tmp_path / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("a\ngone\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2, names gone"):
        read_voc(tmp_path)
