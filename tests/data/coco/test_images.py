import os
import re
import unicodedata

import pytest
from PIL import Image

from detrex.data.coco.images import check_pictures, check_sizes
from tests.reference.annotation_files import STEMS, content, document


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "images"
    (folder / "sub ä").mkdir(parents=True)
    for stem in STEMS["train"]:
        Image.new("L", (2, 3)).save(folder / f"{stem}.png")
        Image.new("L", (2, 3)).save(folder / "sub ä" / f"{stem}.png")
    return folder


def named(name):
    """All names from one pattern, of which ``{}`` is the stem."""

    def change(content_):
        for image, stem in zip(content_["images"], STEMS["train"], strict=True):
            image["file_name"] = name.format(stem)

    return change


def findings(doc):
    return [(f.kind, f.severity, f.count) for f in doc.findings]


@pytest.mark.parametrize("value", [97.0, "97", " 97 ", "97.0"])
def test_check_sizes__numbers_written_otherwise(value):
    doc = document(lambda c: c["images"][1].update(width=value))
    check_sizes(doc)
    assert doc.images == content()["images"]
    assert findings(doc) == [("image-width-text", "warning", 1)]
    assert doc.changed


@pytest.mark.parametrize("value", [None, 0, -5, "wide", 12.5, float("nan"), "inf", True, [97]])
def test_check_sizes__no_number_of_pixels(value):
    doc = document(lambda c: [image.update(height=value) for image in c["images"][2:]])
    check_sizes(doc)
    assert findings(doc) == [("image-height", "error", 3)]
    assert "image 503 'train2.png'" in doc.findings[0].message


@pytest.mark.parametrize("name", ["{}.png", "sub ä/{}.png", "./sub ä/../{}.png", "ROOT/{}.png"])
def test_check_pictures__are_found(root, name):
    doc = document(named(name.replace("ROOT", str(root))))
    check_pictures(doc, str(root))
    assert findings(doc) == []


def test_check_pictures__backslashes(root):
    doc = document(named("sub ä\\{}.png"))
    check_pictures(doc, str(root))
    assert findings(doc) == [("backslash", "warning", 5)]
    assert doc.images[4]["file_name"] == "sub ä/train4.png"


@pytest.mark.parametrize(
    ("name", "count", "hint"),
    [
        ("{}.jpg", 5, r"\('train0.jpg', 'train1.jpg', 'train2.jpg', .* looked for in"),
        ("{}.PNG", 5, "where 'train0.png' is"),
        ("images/{}.png", 5, "where 'train0.png' is without its folder"),
        ("C:\\data\\{}.png", 5, "where 'train0.png' is without its folder"),
        (unicodedata.normalize("NFD", "sub ä/{}.png"), 5, "without its folder"),
        ("sub ä", 5, "looked for"),
    ],
)
def test_check_pictures__missing_are_counted_and_five_named(root, name, count, hint):
    doc = document(named(name))
    check_pictures(doc, str(root))
    finding = next(f for f in doc.findings if f.kind == "picture-missing")
    assert (finding.severity, finding.count) == ("error", count)
    assert f"{count} of 5 pictures are not there" in finding.message
    assert len(finding.message) - len(str(root)) < 400
    assert re.search(hint, finding.message)


def test_check_pictures__pipes_are_told(tmp_path):
    os.mkfifo(tmp_path / "train3.png")
    doc = document(lambda c: c["images"][0].update(file_name="train3.png"))
    check_pictures(doc, str(tmp_path))
    finding = next(f for f in doc.findings if f.kind == "picture-missing")
    assert f"looked for in {tmp_path}, where 'train3.png' is no regular file" in finding.message


def test_check_pictures__image_root_one_folder_too_deep(root):
    doc = document(named("images/{}.png"))
    check_pictures(doc, str(root / "sub ä"))
    assert "without its folder" in doc.findings[0].message
    doc = document(named("images/sub ä/{}.png"))
    check_pictures(doc, str(root.parent / "absent"))
    assert f"image_root={root.parent} would find the first" in doc.findings[0].message


def test_check_pictures__missing_where_bad_ones_are_skipped(root):
    doc = document(lambda c: c["images"][3].update(file_name="gone.png"))
    check_pictures(doc, str(root), severity="warning")
    assert findings(doc) == [("picture-missing", "warning", 1)]
    assert "'gone.png'" in doc.findings[0].message


@pytest.mark.parametrize("name", [None, "", 7, ["a"]])
def test_check_pictures__no_name(root, name):
    doc = document(lambda c: c["images"][1].update(file_name=name))
    check_pictures(doc, str(root))
    assert findings(doc) == [("image-without-file", "error", 1)]


def test_check_pictures__one_picture_of_two_images(root):
    doc = document(lambda c: c["images"][1].update(file_name="train0.png"))
    check_pictures(doc, str(root))
    assert findings(doc) == [("picture-twice", "warning", 1)]


def test_check_pictures__of_another_file_system_are_not_looked_for():
    doc = document()
    check_pictures(doc, "s3://bucket/images")
    assert findings(doc) == []


def test_check_pictures__a_link_to_itself_hides_no_other(tmp_path):
    doc = document()
    for image in doc.images[1:]:
        (tmp_path / image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image["file_name"]).touch()
    loop = tmp_path / doc.images[0]["file_name"]
    loop.parent.mkdir(parents=True, exist_ok=True)
    loop.symlink_to(loop)
    check_pictures(doc, str(tmp_path))
    assert [(f.kind, f.count) for f in doc.findings] == [("picture-missing", 1)]


def test_check_sizes__a_picture_that_is_not_read(monkeypatch):
    def change(content_):
        content_["images"][0] |= {"width": 10**9, "height": 10**9}
        content_["images"][1] |= {"width": 10**400}

    doc = document(change)
    check_sizes(doc)
    assert ("image-too-large", "error", 2) in findings(doc)
    assert "DETREX_MAX_PIXELS" in doc.findings[-1].message


@pytest.mark.parametrize("name", ["a\0/{}.png", "\ud800/{}.png", "http://localhost/{}.png"])
def test_check_pictures__names_that_no_file_has(root, name):
    doc = document(named(name))
    check_pictures(doc, str(root))
    assert findings(doc) == [("image-name", "error", 5)]
    doc.findings[0].message.encode()
