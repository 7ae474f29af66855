import json

import numpy as np
import pytest
from PIL import Image

from detrex.data.datasets import register_coco_json
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.errors import ConfigError
from tools import visualize_json_results

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts
from detrex.data.datasets import register_coco_json
dataloader = dict(
    test=dict(
        dataset=L(get_detection_dataset_dicts)(
            names=L(register_coco_json)(
                name="{name}", json_file="{json_file}", image_root="{image_root}"
            ),
            filter_empty=False,
        )
    )
)
"""


@pytest.fixture
def dataset(tmp_path):
    """Paths of a dataset of three pictures, its name, and a results file for it."""
    json_file, image_root = write_shapes_dataset(tmp_path / "data", 3, image_size=(32, 32))
    found = [
        {"image_id": 2, "category_id": 3, "bbox": [4, 4, 20, 20], "score": 0.8},
        {"image_id": 2, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.1},
    ]
    (tmp_path / "results.json").write_text(json.dumps(found))
    return {
        "name": f"visualize_json_{tmp_path.name}",
        "json_file": str(json_file),
        "image_root": str(image_root),
    }


def _run(tmp_path, *options):
    output = tmp_path / "out"
    arguments = ["--input", str(tmp_path / "results.json"), "--output", str(output)]
    visualize_json_results.main([*arguments, *options])
    return sorted(output.iterdir())


def test_main__registered_dataset(dataset, tmp_path):
    register_coco_json(**dataset)
    files = _run(tmp_path, "--dataset", dataset["name"])
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    assert Image.open(files[0]).size == (480 * 2 + 8, 480 + 28)


def test_main__dataset_of_a_config_and_threshold(dataset, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(**dataset))
    pictures = {}
    for threshold in ("0.5", "0.9"):
        options = ["--config-file", str(config), "--conf-threshold", threshold, "-n", "2"]
        files = _run(tmp_path, *options)
        assert len(files) == 2
        pictures[threshold] = [np.asarray(Image.open(file))[28:] for file in files]
    np.testing.assert_array_equal(pictures["0.5"][0], pictures["0.9"][0])
    assert (pictures["0.5"][1] != pictures["0.9"][1]).any()


def test_main__unknown_dataset_names_the_remedy(dataset, tmp_path):
    register_coco_json(**dataset)
    near = dataset["name"] + "x"
    with pytest.raises(ConfigError, match=rf"{near} is not registered .*{dataset['name']}"):
        _run(tmp_path, "--dataset", near)


def test_main__images_of_another_dataset_are_said(dataset, tmp_path):
    register_coco_json(**dataset)
    row = {"image_id": 77, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.1}
    (tmp_path / "results.json").write_text(json.dumps([row]))
    with pytest.raises(ConfigError, match=r"1 images that the dataset has not, .* image id 77"):
        _run(tmp_path, "--dataset", dataset["name"])


def test_main__bad_pictures_folders_and_originals(dataset, tmp_path):
    """A broken picture is named at the end, folders stay, and no original is replaced."""
    images = tmp_path / "data" / "images"
    coco = json.loads((tmp_path / "data" / "annotations.json").read_text())
    for number, name in enumerate(("a/x.png", "b/x.png", "b/y.png")):
        (images / name).parent.mkdir(exist_ok=True)
        (images / f"{number:06d}.png").rename(images / name)
        coco["images"][number]["file_name"] = name
    (images / "b" / "y.png").write_bytes((images / "b" / "y.png").read_bytes()[:100])
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(coco))
    register_coco_json(**dataset)
    with pytest.raises(SystemExit, match=r"^1 of 3 pictures .*y\.png is truncated"):
        _run(tmp_path, "--dataset", dataset["name"])
    drawn = sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/*/*"))
    assert drawn == ["a/x.png", "b/x.png"]
    arguments = ["--input", str(tmp_path / "results.json"), "--dataset", dataset["name"]]
    with pytest.raises(ConfigError, match="one of the input files"):
        visualize_json_results.main([*arguments, "--output", str(images)])


def test_main__goes_on_past_a_missing_picture(dataset, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(**dataset))
    (tmp_path / "data" / "images" / "000001.png").unlink()
    with pytest.raises(SystemExit, match=r"^1 of 3 pictures .*000001\.png does not exist"):
        _run(tmp_path, "--config-file", str(config))
    drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert drawn == ["000000.png", "000002.png"]
