"""The colour distortion changes colours alone, within its ranges, by numpy's seed."""

import colorsys
import sys

import numpy as np
import pytest

from detrex.data import ColorAugSSDTransform


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)


@pytest.fixture
def always(monkeypatch):
    """Take every step; draw the upper end of every range."""

    def randint(low, high=None):
        return 1 if high is None else high - 1

    monkeypatch.setattr(np.random, "randint", randint)
    monkeypatch.setattr(np.random, "uniform", lambda low, high: high)


def test_apply_image__shape_type_and_input_kept(image):
    before = image.copy()
    transform = ColorAugSSDTransform("RGB")
    np.random.seed(0)
    drawn = [transform.apply_image(image) for _ in range(8)]
    assert all(out.shape == image.shape and out.dtype == np.uint8 for out in drawn)
    assert any((out != image).any() for out in drawn)
    np.testing.assert_array_equal(image, before)


def test_apply_image__rgb_is_bgr_reversed(image):
    np.random.seed(3)
    rgb = ColorAugSSDTransform("RGB").apply_image(image)
    np.random.seed(3)
    bgr = ColorAugSSDTransform("BGR").apply_image(image[..., ::-1])
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])


def test_brightness__adds(image, always):
    out = ColorAugSSDTransform("BGR", brightness_delta=32).brightness(image)
    np.testing.assert_array_equal(out, np.minimum(image.astype(int) + 32, 255))


def test_contrast__multiplies(image, always):
    out = ColorAugSSDTransform("BGR", contrast_high=1.5).contrast(image)
    np.testing.assert_array_equal(out, np.minimum(image * 1.5, 255).astype(np.uint8))


def test_hue__turns_by_two_degrees_a_unit(always):
    blue, green, red = 40, 90, 200
    image = np.full((1, 1, 3), (blue, green, red), np.uint8)
    out = ColorAugSSDTransform("BGR", hue_delta=18).hue(image)[0, 0]
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    expected = np.array(colorsys.hsv_to_rgb(hue + 36 / 360, saturation, value)) * 255
    np.testing.assert_allclose(out[::-1], expected, atol=4)


def test_saturation__multiplies(always):
    blue, green, red = 100, 120, 200
    image = np.full((1, 1, 3), (blue, green, red), np.uint8)
    out = ColorAugSSDTransform("BGR", saturation_high=1.5).saturation(image)[0, 0]
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    expected = np.array(colorsys.hsv_to_rgb(hue, saturation * 1.5, value)) * 255
    np.testing.assert_allclose(out[::-1], expected, atol=4)


def test_apply_coords_and_segmentation__unchanged():
    transform = ColorAugSSDTransform("RGB")
    coords, labels = np.arange(6.0).reshape(3, 2), np.arange(6).reshape(2, 3)
    assert transform.apply_coords(coords) is coords
    assert transform.apply_segmentation(labels) is labels


def test_init__refuses_other_formats():
    with pytest.raises(ValueError, match="img_format must be 'RGB' or 'BGR', got 'YUV'"):
        ColorAugSSDTransform("YUV")


def test_init__without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"needs OpenCV.*: pip install opencv-python-headless"):
        ColorAugSSDTransform("RGB")


def test_apply_image__floats_are_distorted_as_grey(image):
    """A grey picture of floats comes out as its uint8 twin does, up to the twin's rounding."""
    grey = np.repeat(image[..., :1], 3, axis=2)
    transform = ColorAugSSDTransform("RGB")
    for seed in range(8):
        np.random.seed(seed)
        expected = transform.apply_image(grey)
        np.random.seed(seed)
        out = transform.apply_image(grey.astype(np.float32))
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, expected, atol=4)
