"""A polygon that is moved and cut gives the mask that was moved and cut."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import transforms as T

from detrex.data.demo.shapes import draw_scene
from detrex.data.outlines import crop_polygon, transform_outline
from detrex.data.transforms import Rotate90Transform

SIZE = HEIGHT, WIDTH = (53, 71)
# A comb whose two teeth reach down, in whole pixels.
COMB = [[10, 5, 60, 5, 60, 45, 45, 45, 45, 15, 25, 15, 25, 40, 10, 40]]


def drawn(polygons, height, width):
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    encoded = mask_util.frPyObjects([list(map(float, p)) for p in polygons], height, width)
    return mask_util.decode(encoded).any(axis=2)


def outlines():
    shapes = draw_scene(np.random.default_rng(4), SIZE, 4, (0.2, 0.6))[1]
    return [COMB, *(shape.annotation()["segmentation"] for shape in shapes)]


CROP = T.CropTransform(13, 7, 37, 29)
TRANSFORMS = {
    "crop": [CROP],
    "flip, crop": [T.HFlipTransform(WIDTH), CROP],
    "crop, flip, crop": [CROP, T.HFlipTransform(37), T.CropTransform(3, 5, 31, 17)],
    "crop, pad": [CROP, T.PadTransform(5, 3, 7, 11, seg_pad_value=255)],
    "crop twice as large": [CROP, T.ResizeTransform(29, 37, 58, 74)],
    "turn": [Rotate90Transform(1, WIDTH, HEIGHT)],
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("run_lengths", [False, True])
def test_transform_outline__equals_the_transformed_mask(name, run_lengths):
    transforms = T.TransformList(TRANSFORMS[name])
    for outline in outlines():
        mask = drawn(outline, *SIZE).astype(np.uint8)
        expected = transforms.apply_segmentation(mask.copy()) == 1
        given = mask_util.encode(np.asfortranarray(mask)) if run_lengths else outline
        moved = transform_outline(given, transforms)
        seen = moved if run_lengths else drawn(moved, *expected.shape)
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(("dtype", "label"), [(bool, True), (np.uint8, 255)])
def test_transform_outline__mask_of_the_image(name, dtype, label):
    transforms = T.TransformList(TRANSFORMS[name])
    for outline in outlines():
        mask = drawn(outline, *SIZE)
        moved = transform_outline(np.where(mask, label, 0).astype(dtype), transforms)
        expected = transforms.apply_segmentation(mask.astype(np.uint8)) == 1
        assert moved.dtype == bool
        np.testing.assert_array_equal(moved, expected)


def test_transform_outline__uncompressed_run_lengths():
    counts = [HEIGHT * 2, HEIGHT, HEIGHT * (WIDTH - 3)]
    mask = transform_outline({"size": list(SIZE), "counts": counts}, T.TransformList([]))
    assert mask.dtype == bool
    assert mask[:, 2].all()
    assert mask.sum() == HEIGHT


@pytest.mark.parametrize("outline", [[[0, 0, 9, 0, 9, 9]], [[50, 40, 60, 40, 60, 50, 50, 50]]])
def test_transform_outline__nothing_is_left(outline):
    assert transform_outline(outline, T.TransformList([CROP])) == []


def test_transform_outline__line_is_nothing():
    assert transform_outline([[3, 3, 9, 9, 15, 15]], T.TransformList([])) == []


@pytest.mark.parametrize("seed", range(5))
def test_crop_polygon__stays_within_and_covers_what_was_there(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    star = 20 + rng.uniform(5, 30, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    cut = crop_polygon(star, 31.5, 23.5)
    assert (cut >= -1e-9).all()
    assert (cut <= np.array([31.5, 23.5]) + 1e-9).all()
    fine = 20  # cells to a pixel, so that drawing errs by little
    shifted = [((star + 30) * fine).ravel()]
    whole = drawn(shifted, 90 * fine, 90 * fine)[30 * fine :, 30 * fine :]
    inside = whole[: round(23.5 * fine), : round(31.5 * fine)].sum()
    x, y = cut.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == pytest.approx(inside / fine**2, rel=0.01)
