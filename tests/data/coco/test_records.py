import json
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json

from detrex.data.coco.inspection import inspect
from detrex.data.coco.records import evaluation_file, metadata_of, standard_records
from detrex.errors import DataError
from tests.reference.annotation_files import HEIGHT, WIDTH, write


def varied(content):
    """Crowds, key points, gaps in the ids, two polygons, an empty picture, another order."""
    counts = [40, 20, HEIGHT * WIDTH - 60]
    for record in content["categories"]:
        record["id"] = record["id"] * 4 - 1
    for number, record in enumerate(content["annotations"]):
        record["category_id"] = record["category_id"] * 4 - 1
        record["keypoints"] = [number, 3, 2, 5.5, 6, 1]
    content["annotations"][3]["segmentation"] *= 2
    crowd = {"iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
    content["annotations"][4].update(crowd)
    del content["annotations"][0]["segmentation"]
    content["images"][0]["id"] = 9999
    content["images"].reverse()
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 501]


def test_standard_records__are_those_of_detectron2(tmp_path):
    folder = write(tmp_path / "data", varied)
    file, root = str(folder / "train.json"), str(folder / "images")
    document = inspect(file, root)
    assert document.findings == []
    assert standard_records(document, root) == load_coco_json(file, root, "records_of_detectron2")
    metadata = MetadataCatalog.get("records_of_detectron2")
    assert metadata_of(document).items() <= metadata.as_dict().items()
    MetadataCatalog.remove("records_of_detectron2")


def test_evaluation_file__is_the_users_own_where_that_serves(tmp_path):
    folder = write(tmp_path / "data")
    document = inspect(folder / "test.json", folder / "images")
    assert evaluation_file(document, tmp_path / "out", "name") == str(folder / "test.json")
    assert not (tmp_path / "out").exists()


def test_evaluation_file__copy_named_by_its_content(tmp_path):
    def without_areas(content):
        for annotation in content["annotations"]:
            del annotation["area"]

    folder = write(tmp_path / "data", without_areas)
    before = (folder / "test.json").read_bytes()
    document = inspect(folder / "test.json", folder / "images")
    copy = evaluation_file(document, tmp_path / "out", "a/b c")
    assert Path(copy).parent == tmp_path / "out"
    assert json.loads(Path(copy).read_text()) == document.content()
    assert (folder / "test.json").read_bytes() == before
    again = inspect(folder / "test.json", folder / "images")
    assert evaluation_file(again, tmp_path / "out", "a/b c") == copy
    again.kept[0], again.evaluation_file = False, ""
    assert evaluation_file(again, tmp_path / "out", "a/b c") != copy
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_evaluation_file__nowhere_to_write(tmp_path):
    folder = write(tmp_path / "data")
    document = inspect(folder / "test.json", folder / "images")
    document.changed = True
    with pytest.raises(DataError, match=r"cannot be written.*choose another train\.output_dir"):
        evaluation_file(document, folder / "test.json", "name")
