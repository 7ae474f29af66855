import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data.catalog import Metadata

from detrex.data.predictions import check_images, create_instances, read_predictions
from detrex.errors import ConfigError


def test_create_instances__categories_become_contiguous_and_boxes_corners():
    metadata = Metadata(
        name="create_instances_test", thing_dataset_id_to_contiguous_id={7: 0, 9: 1}
    )
    rows = [{"category_id": 9, "bbox": [3, 5, 7, 11], "score": 0.5}]
    found = create_instances(rows, (31, 47), metadata)
    assert found.image_size == (31, 47)
    assert found.pred_classes.tolist() == [1]
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([[3.0, 5.0, 10.0, 16.0]]))


def test_create_instances__nothing_found():
    found = create_instances([], (31, 47), Metadata(name="none"))
    assert len(found) == 0
    assert found.pred_boxes.tensor.shape == (0, 4)


def test_create_instances__a_category_of_another_dataset_is_said():
    metadata = Metadata(name="create_other", thing_dataset_id_to_contiguous_id={7: 0, 9: 1})
    rows = [{"category_id": 8, "bbox": [3, 5, 7, 11], "score": 0.5}]
    with pytest.raises(ConfigError, match=r"category 8, but the dataset's categories are 7, 9: "):
        create_instances(rows, (31, 47), metadata)


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
        read_predictions(str(tmp_path / "results.json"))


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


def test_check_images__names_one_that_the_dataset_has_not():
    records = [{"image_id": 3}, {"image_id": "4"}]
    check_images({3: [], "4": []}, records)
    with pytest.raises(ConfigError, match=r"2 images that the dataset has not, .* image id 5"):
        check_images({5: [], 3: [], 4: []}, records)
