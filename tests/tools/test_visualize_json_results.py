import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data.catalog import Metadata
from PIL import Image

from detrex.data.datasets import register_coco_json
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.errors import ConfigError
from tools import visualize_json_results
from tools.visualize_json_results import create_instances, read_predictions

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


def test_create_instances__categories_become_contiguous_and_boxes_corners():
    metadata = Metadata(
        name="create_instances_test", thing_dataset_id_to_contiguous_id={7: 0, 9: 1}
    )
    rows = [{"category_id": 9, "bbox": [3, 5, 7, 11], "score": 0.5}]
    found = visualize_json_results.create_instances(rows, (31, 47), metadata)
    assert found.image_size == (31, 47)
    assert found.pred_classes.tolist() == [1]
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([[3.0, 5.0, 10.0, 16.0]]))


def test_create_instances__nothing_found():
    found = visualize_json_results.create_instances([], (31, 47), Metadata(name="none"))
    assert len(found) == 0
    assert found.pred_boxes.tensor.shape == (0, 4)


def test_create_instances__a_category_of_another_dataset_is_said():
    metadata = Metadata(name="create_other", thing_dataset_id_to_contiguous_id={7: 0, 9: 1})
    rows = [{"category_id": 8, "bbox": [3, 5, 7, 11], "score": 0.5}]
    with pytest.raises(ConfigError, match=r"category 8, but the dataset's categories are 7, 9: "):
        visualize_json_results.create_instances(rows, (31, 47), metadata)


def test_main__images_of_another_dataset_are_said(dataset, tmp_path):
    register_coco_json(**dataset)
    row = {"image_id": 77, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.1}
    (tmp_path / "results.json").write_text(json.dumps([row]))
    with pytest.raises(ConfigError, match=r"1 images that the dataset has not, .* image id 77"):
        _run(tmp_path, "--dataset", dataset["name"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read"),
        ("[{", "is no JSON"),
        ('{"images": []}', "something else than rows with bbox, category_id"),
        ("[3]", "something else than rows"),
    ],
)
def test_read_predictions__says_what_the_file_is(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        visualize_json_results.read_predictions(str(tmp_path / "results.json"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("bbox", box) for box in ([1, 2, 3], list("abcd"), None, [1, 2, 3, float("nan")])],
        *[("score", score) for score in ("0.5", None, float("inf"), True)],
        *[(key, [1]) for key in ("image_id", "category_id")],
    ],
)
def test_read_predictions__says_which_row_is_none(tmp_path, key, value):
    row = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row, {**row, key: value}]))
    with pytest.raises(ConfigError, match=rf"has the row .*'{key}'") as caught:
        read_predictions(str(file))
    assert len(str(caught.value)) < 400 + len(str(file))


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


def test_create_instances__masks_and_keypoints_of_the_rows():
    mask = np.zeros((7, 11), dtype=np.uint8, order="F")
    mask[2:5, 3:9] = 1
    row = {"image_id": 1, "category_id": 0, "bbox": [3, 2, 6, 3], "score": 0.5}
    full = row | {"segmentation": mask_util.encode(mask), "keypoints": [3, 2, 0.75, 8, 4, 0.25]}
    metadata = Metadata(name="visualize_rows")
    found = create_instances([full, full], (7, 11), metadata)
    np.testing.assert_array_equal(found.pred_masks[1].numpy(), mask == 1)
    assert found.pred_keypoints[0].tolist() == [[3.5, 2.5, 0.75], [8.5, 4.5, 0.25]]
    for rows in ([], [row, full]):
        plain = create_instances(rows, (7, 11), metadata)
        assert not plain.has("pred_masks")
        assert not plain.has("pred_keypoints")
