import json

import pytest
import torch
from omegaconf import OmegaConf
from pycocotools.coco import COCO
from torch import nn

from detrex.errors import ConfigError
from detrex.inference import Detector
from detrex.inference.coco_file import CocoFile
from tests.inference.test_result import result


def detector(**keywords):
    names = ("circle", "disc")
    return Detector(nn.Linear(1, 1), OmegaConf.create(), class_names=names, **keywords)


def test_coco_file__is_read_by_coco_tools(tmp_path):
    file = CocoFile(tmp_path / "all.json", detector(category_ids=(7, 3)))
    file.add(result(category_ids=(7, 3)))
    file.add(result(category_ids=(7, 3), path="a.mp4", frame=4).filter(0.5))
    file.write()
    coco = COCO(str(tmp_path / "all.json"))
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {7: "circle", 3: "disc"}
    first, second = coco.loadImgs(coco.getImgIds())
    assert (first["file_name"], first["width"]) == ("a <b>.png", 47)
    assert (second["file_name"], second["frame"]) == ("a.mp4", 4)
    found = coco.loadAnns(coco.getAnnIds(imgIds=[second["id"]]))
    assert [each["category_id"] for each in found] == [3, 7]
    assert found[0]["bbox"] == [1.0, 2.0, 10.0, 20.0]
    assert coco.annToMask(found[0]).sum() == 200


def test_coco_file__categories_are_classes_where_ids_are_unknown(tmp_path):
    assert CocoFile(tmp_path / "a.json", detector()).categories == [
        {"id": 0, "name": "circle"},
        {"id": 1, "name": "disc"},
    ]


def test_coco_file__classes_without_names_are_categories_too(tmp_path):
    file = CocoFile(tmp_path / "a.json", detector())
    file.add(result(labels=torch.tensor([0, 5, 5])))
    assert [category["name"] for category in file.categories] == ["circle", "disc", "class 5"]
    assert {a["category_id"] for a in file.annotations} == {0, 5}


def test_coco_file__replaces_its_own_only(tmp_path):
    for _ in range(2):
        CocoFile(tmp_path / "a.json", detector()).write()
    (tmp_path / "b.json").write_text(json.dumps({"images": []}))
    with pytest.raises(ConfigError, match=r"b\.json exists and was not written by this program"):
        CocoFile(tmp_path / "b.json", detector())
