import json

import numpy as np
import pytest
from detectron2.config import LazyConfig
from PIL import Image

from detrex.cli import main
from detrex.config import find_config, load_config
from detrex.data.demo.shapes import write_shapes_dataset
from tests.project.labelled import yolo
from tests.reference.unregistered import unregistered


@pytest.fixture(autouse=True)
def _unregistered():
    with unregistered():
        yield


@pytest.fixture
def shapes(tmp_path):
    """A folder of ten pictures to train on and four to validate on."""
    for seed, (part, count) in enumerate({"train": 10, "val": 4}.items()):
        write_shapes_dataset(tmp_path / "data" / part, count, image_size=(48, 32), seed=seed)
    return tmp_path / "data"


def _config(shapes):
    return ["data", "dino/demo_shapes.py", f"dataloader.folder={shapes}"]


def _words(text):
    return [line.split() for line in text.splitlines()]


def test_data__of_a_config(shapes, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*_config(shapes), "--pictures", "3", "--output", str(out)]) == 0
    told = capsys.readouterr().out
    assert ["images", "10", "4"] in _words(told)
    count = {
        side: len(json.loads((shapes / side / "annotations.json").read_text())["annotations"])
        for side in ("train", "val")
    }
    assert ["objects", str(count["train"]), str(count["val"])] in _words(told)
    for side in ("train", "test"):
        drawn = sorted((out / side).iterdir())
        assert [file.name for file in drawn] == [f"{number:06d}.png" for number in range(3)]
        assert f"drawn: {out / side}" in told
    original = Image.open(shapes / "train" / "images" / "000000.png").resize((320, 480))
    drawn = Image.open(out / "train" / "000000.png")
    difference = np.asarray(drawn.resize((320, 480))).astype(int) - np.asarray(original)
    assert (np.abs(difference).max(axis=-1) > 100).any()


def test_data__of_nothing_says_what_is_required(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data"])
    assert "required: CONFIG|JSON|FOLDER; " in capsys.readouterr().err


def test_data__of_a_json_file(shapes, capsys):
    file = str(shapes / "val" / "annotations.json")
    assert main(["data", file, "--pictures", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(card["images"], card["file"]) for card in told["data"]] == [(4, file)]
    assert told["drawn"] == told["findings"] == []


def test_data__of_a_folder_with_yolos_labels(tmp_path, capsys):
    folder = yolo(tmp_path / "mine", {"train/a": "0 0.5 0.5 0.25 0.5\n", "train/b": ""})
    words = ["--output", str(tmp_path / "out"), "--pictures", "1"]
    assert main(["data", str(folder), *words]) == 0
    told = _words(capsys.readouterr().out)
    assert ["images", "2"] in told
    assert ["without", "objects", "1"] in told
    assert ["0", "cat", "1"] in told
    assert len(list((tmp_path / "out" / "train").rglob("*.png"))) == 1


def test_data__of_a_folder_names_the_folder(tmp_path, capsys):
    """And no file that is gone when the user reads of it."""
    folder = yolo(tmp_path / "mine", {"train/a": "0 0.9 0.5 0.2 0.0\n", "train/b": "0 1 1 1 1\n"})
    main(["data", str(folder), "--pictures", "0"])
    captured = capsys.readouterr()
    assert f"train: detrex_data_train, {folder}\n" in captured.out
    assert f"mended: {folder}: " in captured.out
    assert "detrex-data-" not in captured.out + captured.err


def test_data__what_the_loader_feeds(shapes, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*_config(shapes), "--loader", "--pictures", "5", "--output", str(out)]) == 0
    assert len(list((out / "loader").iterdir())) == 5
    assert f"drawn: {out / 'loader'}" in capsys.readouterr().out


def test_data__predictions_beside_the_truth(shapes, tmp_path, capsys):
    row = {"image_id": 2, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.9}
    (tmp_path / "found.json").write_text(json.dumps([row]))
    words = ["--predictions", str(tmp_path / "found.json"), "--output", str(tmp_path / "out")]
    assert main([*_config(shapes), *words]) == 0
    assert len(list((tmp_path / "out" / "predictions").iterdir())) == 4


def test_data__of_a_runs_folder(shapes, tmp_path, capsys):
    cfg = load_config(find_config("dino/demo_shapes.py"))
    cfg.dataloader.folder = str(shapes)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    (tmp_path / "run.json").write_text("{}")
    assert main(["data", str(tmp_path), "--pictures", "0"]) == 0
    assert ["images", "10", "4"] in _words(capsys.readouterr().out)


@pytest.mark.parametrize("option", [["--loader"], ["--predictions", "found.json"]])
def test_data__what_needs_a_config(shapes, option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", str(shapes / "val"), *option])
    assert f"{option[0]} is for a config or a run's folder" in capsys.readouterr().err


def test_data__mistakes_and_pictures_that_cannot_be_drawn(shapes, tmp_path, capsys):
    picture = shapes / "train" / "images" / "000001.png"
    picture.write_bytes(picture.read_bytes()[:100])
    assert main([*_config(shapes), "--output", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().out
    assert "1 mistake found\n  1. " in told
    assert "000001.png is truncated" in told


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("absent.json", "absent.json does not exist"),
        ("dino/demo_shape.py", "Did you mean"),
        ("nowhere", "there is no folder nowhere, and no such config: "),
        ("config.yaml", "config.yaml names no data set in COCO's format: name a config with"),
    ],
)
def test_data__there_are_none(tmp_path, monkeypatch, capsys, source, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("train: {device: cpu}")
    assert main(["data", source]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1
