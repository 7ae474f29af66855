"""Tiles hold the pixels and boxes of their place in the scene, by the rule that is written down."""

import json

import numpy as np
import pytest
from PIL import Image

from detrex.data.demo import photographs
from detrex.data.demo.photographs import read_voc_boxes, write_photograph_tiles

TILE = 32
BOXES = {
    # Inside the first tile; cut by its right edge with 60 % and with 30 % left; across its corner.
    "town": [(3, 5, 13, 12), (26, 1, 36, 9), (29, 12, 39, 20), (28, 28, 36, 36)],
    "field": [(1, 1, 31, 31)],
    "coast": [(40, 3, 50, 9)],
}
SIZES = {"town": (97, 71), "field": (32, 32), "coast": (67, 40)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three pictures, width x height of SIZES, each pixel unlike its neighbours."""
    folder = tmp_path_factory.mktemp("scenes")
    for name, (width, height) in SIZES.items():
        pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        objects = "".join(
            f"<object><name>Tree</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for x0, y0, x1, y1 in BOXES[name]
        )
        (folder / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder


def write(tmp_path, scenes, **options):
    defaults = {"train_scenes": ["field", "town"], "val_scenes": ["coast"], "train_stride": TILE}
    parts = write_photograph_tiles(tmp_path, scenes, tile_size=TILE, **(defaults | options))
    return {part: (json.loads(file.read_text()), images) for part, (file, images) in parts.items()}


def boxes_of(coco, file_name):
    (image,) = (image for image in coco["images"] if image["file_name"] == file_name)
    return [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]


def test_read_voc_boxes__corners(scenes):
    np.testing.assert_array_equal(read_voc_boxes(scenes / "town.xml"), BOXES["town"])


def test_write_photograph_tiles__validation_is_side_by_side(tmp_path, scenes):
    coco, _ = write(tmp_path, scenes)["val"]
    assert [i["file_name"] for i in coco["images"]] == ["coast_0_0.png", "coast_32_0.png"]
    assert boxes_of(coco, "coast_0_0.png") == []
    assert boxes_of(coco, "coast_32_0.png") == [[8, 3, 10, 6]]
    assert coco["categories"] == [{"id": 1, "name": "tree"}]


def test_write_photograph_tiles__training_covers_the_scenes(tmp_path, scenes):
    coco, image_root = write(tmp_path, scenes)["train"]
    covered = np.zeros(SIZES["town"][::-1], dtype=bool)
    with Image.open(scenes / "town.png") as picture:
        scene = np.asarray(picture)
    for image in coco["images"]:
        name, x, y = image["file_name"].removesuffix(".png").split("_")
        if name == "town":
            here = np.s_[int(y) : int(y) + TILE, int(x) : int(x) + TILE]
            covered[here] = True
            with Image.open(image_root / image["file_name"]) as tile:
                np.testing.assert_array_equal(np.asarray(tile), scene[here])
    assert covered.all()
    assert any(image["file_name"] == "field_0_0.png" for image in coco["images"])


def test_write_photograph_tiles__smaller_stride_makes_more(tmp_path, scenes):
    assert len(write(tmp_path, scenes, train_stride=16)["train"][0]["images"]) > len(
        write(tmp_path, scenes)["train"][0]["images"]
    )


@pytest.mark.parametrize(
    ("min_visible", "expected"),
    [
        (0.4, [[3, 5, 10, 7], [26, 1, 6, 8]]),
        (0.3, [[3, 5, 10, 7], [26, 1, 6, 8], [29, 12, 3, 8]]),
        (0.25, [[3, 5, 10, 7], [26, 1, 6, 8], [29, 12, 3, 8], [28, 28, 4, 4]]),
        (1.0, [[3, 5, 10, 7]]),
    ],
)
def test_write_photograph_tiles__cut_boxes(tmp_path, scenes, min_visible, expected):
    coco, _ = write(tmp_path, scenes, min_visible=min_visible)["train"]
    assert boxes_of(coco, "town_0_0.png") == expected
    assert all(a["area"] == a["bbox"][2] * a["bbox"][3] for a in coco["annotations"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_stride": 0}, "train_stride at least 1.* got 32, 0 and 0.4"),
        ({"min_visible": 0.0}, r"min_visible within \(0, 1\], got 32, 32 and 0.0"),
        ({"train_scenes": ["coast"]}, r"Scenes \['coast'\] are both for training and for"),
    ],
)
def test_write_photograph_tiles__refuses(tmp_path, scenes, options, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, scenes, **options)


def test_write_photograph_tiles__scene_too_small(tmp_path, scenes):
    with pytest.raises(ValueError, match="Scene field is 32x32 pixels, too small for tiles of 33"):
        write_photograph_tiles(
            tmp_path, scenes, tile_size=33, train_scenes=["field"], val_scenes=["town"]
        )


def test_write_photograph_tiles__fetches_without_a_source(tmp_path, scenes, monkeypatch):
    monkeypatch.setattr(photographs, "fetch_photographs", lambda: scenes)
    assert write(tmp_path, None)["val"][0]["images"]


def test_pinned_wheels__hold_a_picture_and_boxes_for_each_scene():
    names = {path.rpartition("/")[2] for path in photographs.AERIAL_PHOTOGRAPHS.members}
    scenes = photographs.TRAIN_SCENES + photographs.VAL_SCENES
    assert names == {f"{scene}.{kind}" for scene in scenes for kind in ("png", "xml")}


def test_main__says_when_the_photographs_cannot_be_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SystemExit, match="1"):
        photographs.main([str(tmp_path / "out"), "--cache", str(tmp_path / "cache")])
    assert "deepforest==2.1.0 could not be fetched" in capsys.readouterr().err
