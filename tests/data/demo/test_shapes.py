"""The pictures are the same each time, and the annotations say what is drawn."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detrex.data.demo.shapes import CLASSES, KEYPOINTS, draw_scene, main, write_shapes_dataset

SIZE = (61, 83)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    json_file, image_root = write_shapes_dataset(root, 11, SIZE, seed=3, max_objects=5)
    return json.loads(json_file.read_text()), image_root


def test_write_shapes_dataset__files_and_sizes(dataset):
    coco, image_root = dataset
    assert [category["name"] for category in coco["categories"]] == list(CLASSES)
    assert len(coco["images"]) == 11
    for image in coco["images"]:
        with Image.open(image_root / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == SIZE[::-1]
    assert {a["image_id"] for a in coco["annotations"]} == {i["id"] for i in coco["images"]}
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"])


def test_write_shapes_dataset__annotations_fit_the_outlines(dataset):
    coco, _ = dataset
    for annotation in coco["annotations"]:
        drawn = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], *SIZE))[..., 0]
        rows, columns = np.nonzero(drawn)
        x, y, width, height = annotation["bbox"]
        assert (columns.min(), columns.max() + 1) == (x, x + width)
        assert (rows.min(), rows.max() + 1) == (y, y + height)
        assert drawn.sum() == annotation["area"]


@pytest.mark.parametrize(
    ("size", "size_range"),
    [((61, 83), (0.1, 0.4)), ((29, 17), (0.05, 0.3)), ((83, 61), (0.6, 1.0))],
)
def test_annotation__outline_is_drawn_as_exactly_the_mask(size, size_range):
    for seed in range(20):
        for shape in draw_scene(np.random.default_rng(seed), size, 5, size_range)[1]:
            (polygon,) = shape.annotation()["segmentation"]
            drawn = coco_mask.decode(coco_mask.frPyObjects([polygon], *size))[..., 0]
            np.testing.assert_array_equal(drawn, shape.mask)


def test_annotation__keypoints_are_corners_and_centre():
    seen = set()
    for seed in range(9):
        for shape in draw_scene(np.random.default_rng(seed), SIZE, 5, (0.2, 0.4))[1]:
            annotation = shape.annotation()
            triples = np.reshape(annotation["keypoints"], (-1, 3))
            points = {n: t[:2] + 0.5 for n, t in zip(KEYPOINTS, triples, strict=True) if t[2] == 2}
            assert len(points) == annotation["num_keypoints"]
            assert not triples[triples[:, 2] == 0].any()
            rows, columns = np.nonzero(shape.mask)
            middle = np.array([columns.mean(), rows.mean()]) + 0.5
            np.testing.assert_allclose(points.pop("center"), middle, atol=0.8)
            for name, (x, y) in points.items():
                assert np.abs(shape.outline - [x, y]).sum(1).min() < 0.02
                assert ("left" in name) == (x < middle[0]) or name == "top"
                assert ("top" in name) == (y < middle[1])
            seen.add((CLASSES[shape.category], *sorted(points)))
    sides = ("bottom_left", "bottom_right")
    square = ("square", *sides, "top_left", "top_right")
    assert seen == {("circle",), square, ("triangle", *sides, "top")}


def test_draw_scene__shapes_have_pixels():
    for seed in range(20):
        _, shapes = draw_scene(np.random.default_rng(seed), (16, 16), 9, (0.05, 0.1))
        assert all(shape.mask.any() for shape in shapes)


def test_draw_scene__shapes_are_disjoint_and_boxes_tight():
    for seed in range(5):
        _, shapes = draw_scene(np.random.default_rng(seed), SIZE, 7, (0.1, 0.4))
        assert np.sum([shape.mask for shape in shapes], axis=0).max() == 1
        for shape in shapes:
            x, y, width, height = shape.annotation()["bbox"]
            inside = shape.mask[y : y + height, x : x + width]
            assert inside.sum() == shape.mask.sum()
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_draw_scene__shapes_stand_out():
    image, shapes = draw_scene(np.random.default_rng(1), SIZE, 3, (0.3, 0.4))
    for shape in shapes:
        assert image[shape.mask].std(axis=0).max() < image[~shape.mask].std(axis=0).max()


def test_write_shapes_dataset__deterministic(dataset, tmp_path):
    coco, image_root = dataset
    json_file, again = write_shapes_dataset(tmp_path, 3, SIZE, seed=3, max_objects=5)
    first = [a for a in coco["annotations"] if a["image_id"] <= 3]
    assert json.loads(json_file.read_text())["annotations"] == first
    for name in ("000000.png", "000001.png", "000002.png"):
        assert (again / name).read_bytes() == (image_root / name).read_bytes()


def test_write_shapes_dataset__seed_matters(dataset, tmp_path):
    _, image_root = dataset
    _, other = write_shapes_dataset(tmp_path, 1, SIZE, seed=4)
    assert (other / "000000.png").read_bytes() != (image_root / "000000.png").read_bytes()


def test_write_shapes_dataset__max_objects_crowds(tmp_path):
    def mean_count(max_objects):
        json_file, _ = write_shapes_dataset(tmp_path, 9, SIZE, max_objects=max_objects)
        return len(json.loads(json_file.read_text())["annotations"]) / 9

    assert mean_count(1) == 1
    assert mean_count(9) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, "num_images and max_objects must be at least 1, got 0 and 6"),
        ({"num_images": 1, "max_objects": 0}, "at least 1, got 1 and 0"),
        ({"num_images": 1, "image_size": (8, 128)}, r"at least 16 pixels, got \(8, 128\)"),
        ({"num_images": 1, "size_range": (0.5, 0.2)}, r"within \(0, 1\], got \(0.5, 0.2\)"),
    ],
)
def test_write_shapes_dataset__refuses(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_shapes_dataset(tmp_path, **arguments)


def test_main__writes_both_parts(tmp_path):
    main([str(tmp_path), "--train", "2", "--val", "1", "--size", "32"])
    for part, count in (("train", 2), ("val", 1)):
        assert len(list((tmp_path / part / "images").iterdir())) == count
        assert (tmp_path / part / "annotations.json").is_file()
