import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from detrex.errors import ConfigError
from detrex.inference.result import Result, checked_threshold, write_json

BOXES = [[1.0, 2.0, 11.0, 22.0], [5.0, 5.0, 40.0, 30.0], [0.0, 0.0, 47.0, 31.0]]


def result(**changes):
    masks = torch.zeros(3, 31, 47, dtype=torch.bool)
    masks[0, 2:22, 1:11] = masks[1, 5:30, 5:40] = True
    points = torch.tensor([[[3.0, 4.0, 0.9], [5.0, 6.0, 0.1]]]).repeat(3, 1, 1)
    parts = {
        "boxes": torch.tensor(BOXES),
        "scores": torch.tensor([0.9, 0.6, 0.25]),
        "labels": torch.tensor([1, 0, 1]),
        "image": np.full((31, 47, 3), 90, np.uint8),
        "class_names": ("circle", "disc"),
        "path": "a <b>.png",
        "masks": masks,
        "keypoints": points,
    }
    return Result(**{**parts, **changes})


@pytest.mark.parametrize(
    ("threshold", "classes", "kept"),
    [
        (None, None, [0, 1, 2]),
        (0.6, None, [0, 1]),
        (None, "disc", [0, 2]),
        (0.5, [1], [0]),
        (0.95, None, []),
        (None, [], []),
    ],
)
def test_filter__by_score_and_class(threshold, classes, kept):
    filtered = result().filter(threshold, classes)
    assert len(filtered) == len(kept)
    np.testing.assert_array_equal(filtered.boxes, np.reshape([BOXES[i] for i in kept], (-1, 4)))
    for field in ("scores", "labels", "masks", "keypoints"):
        np.testing.assert_array_equal(getattr(filtered, field), getattr(result(), field)[kept])


def test_names_and_counts():
    assert result().names == ["disc", "circle", "disc"]
    assert result().counts == {"disc": 2, "circle": 1}
    assert result(class_names=()).names == ["class 1", "class 0", "class 1"]


def test_to_coco__boxes_masks_and_the_data_sets_ids():
    first, second, _ = result(category_ids=(7, 3)).to_coco(12)
    assert first["bbox"] == [1.0, 2.0, 10.0, 20.0]
    assert (first["image_id"], first["category_id"], second["category_id"]) == (12, 3, 7)
    np.testing.assert_array_equal(mask_util.decode(first["segmentation"]), result().masks[0])
    assert first["keypoints"][:3] == pytest.approx([2.5, 3.5, 0.9])  # COCO counts from corners
    assert result().to_coco()[0]["category_id"] == 1
    assert result().keypoints[0, 0].tolist() == pytest.approx([3.0, 4.0, 0.9])


def test_to_coco__ids_of_numpy_are_written_as_json():
    (found, *_) = json.loads(json.dumps(result().to_coco(np.int64(7))))
    assert found["image_id"] == 7


def test_to_coco__a_class_beyond_those_of_the_data_set():
    found = result(labels=torch.tensor([1, 0, 7]), category_ids=(30, 10))
    with pytest.raises(ConfigError, match="class 7 was found, but its data set has 2 classes"):
        found.to_coco()
    assert [each["category_id"] for each in found.filter(0.5).to_coco()] == [10, 30]
    assert [each["name"] for each in found.to_dict()["objects"]] == ["disc", "circle", "class 7"]


def test_save__to_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert result().save("~/a.json") == tmp_path / "a.json"
    assert (tmp_path / "a.json").is_file()


def test_to_supervision__the_same_numbers():
    pytest.importorskip("supervision")
    detections = result().to_supervision()
    np.testing.assert_array_equal(detections.xyxy, result().boxes)
    np.testing.assert_array_equal(detections.confidence, result().scores)
    np.testing.assert_array_equal(detections.class_id, result().labels)
    np.testing.assert_array_equal(detections.mask, result().masks)
    assert detections.data["class_name"].tolist() == ["disc", "circle", "disc"]
    nothing = result(masks=None).filter(0.95).to_supervision()
    assert len(nothing) == 0


def test_to_supervision__says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install supervision"):
        result().to_supervision()


def test_plot__draws_on_the_picture_at_its_size_or_larger():
    assert result().plot().size == (728, 480)
    picture = result().plot(min_side=0)
    assert picture.size == (47, 31)
    assert (np.asarray(picture) != 90).any()
    untouched = result(path=None).filter(0.95).plot(min_side=0)
    assert (np.asarray(untouched) == 90).all()


@pytest.mark.parametrize("name", ["a.png", "deep/a.JPG", "a.webp"])
def test_save__a_picture_that_may_be_replaced(tmp_path, name):
    for _ in range(2):
        assert result().save(tmp_path / name) == tmp_path / name
    assert Image.open(tmp_path / name).size == (728, 480)


def test_save__json_that_may_be_replaced(tmp_path):
    for _ in range(2):
        result().save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["made_by"] == "detrex"
    assert content["objects"][0]["box"] == BOXES[0]
    assert content["objects"][0]["name"] == "disc"
    mask = mask_util.decode(content["objects"][1]["mask"])
    np.testing.assert_array_equal(mask, result().masks[1])


@pytest.mark.parametrize("name", ["own.png", "own.json"])
def test_save__nothing_of_the_users_is_written_over(tmp_path, name):
    file = tmp_path / name
    file.write_text('{"mine": 1}')
    if name.endswith("png"):
        Image.new("RGB", (3, 3)).save(file)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"own\.\w+ exists and was not .* not written over"):
        result().save(file)
    assert file.read_bytes() == before


def test_save__not_over_its_own_picture(tmp_path):
    file = tmp_path / "a.png"
    result().save(file)
    (tmp_path / "link.png").symlink_to(file)
    for target in ("a.png", "link.png"):
        with pytest.raises(ConfigError, match="is one of the input files"):
            result(path=str(file)).save(tmp_path / target)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.mp4"])
def test_save__an_unknown_ending_is_said(tmp_path, name):
    with pytest.raises(ConfigError, match=r"has no ending that a result is saved under.*\.json"):
        result().save(tmp_path / name)


def test_write_json__where_it_cannot(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file/a.json", "a" * 300 + ".json"):
        with pytest.raises(ConfigError, match="cannot be written"):
            write_json(tmp_path / name, {})


@pytest.mark.parametrize("threshold", [-0.1, 1.5, "0.5", True, None, float("nan")])
def test_checked_threshold__no_score(threshold):
    with pytest.raises(ConfigError, match="is no score: expected a number from 0 to 1"):
        checked_threshold(threshold)
