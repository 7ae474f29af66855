"""A turn moves every pixel, point and box as turning the picture by hand does."""

import numpy as np
import pytest

from detrex.data.transforms import RandomRotate90, Rotate90Transform

HEIGHT, WIDTH = 5, 11


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3, 4])
def test_apply__box_holds_the_same_pixels(image, turns):
    transform = Rotate90Transform(turns, WIDTH, HEIGHT)
    x0, y0, x1, y1 = 2, 1, 9, 4
    marked = np.zeros((HEIGHT, WIDTH), np.uint8)
    marked[y0:y1, x0:x1] = 1
    turned = transform.apply_segmentation(marked)
    rows, columns = np.nonzero(turned)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert transform.apply_box(np.array([[x0, y0, x1, y1]]))[0].tolist() == expected
    np.testing.assert_array_equal(transform.apply_image(image), np.rot90(image, turns))


@pytest.mark.parametrize("turns", range(4))
def test_inverse__undoes_the_turn(image, turns):
    transform = Rotate90Transform(turns, WIDTH, HEIGHT)
    back = transform.inverse()
    np.testing.assert_array_equal(back.apply_image(transform.apply_image(image)), image)
    points = np.array([[0.0, 0.0], [2.5, 4.0], [WIDTH, HEIGHT]])
    np.testing.assert_allclose(back.apply_coords(transform.apply_coords(points)), points)


def test_get_transform__draws_all_four(image):
    np.random.seed(0)
    drawn = [RandomRotate90().get_transform(image).turns for _ in range(200)]
    assert set(drawn) == {0, 1, 2, 3}
