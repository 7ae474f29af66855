"""Rules found on networks made for the purpose, and fitting against plain slicing."""

import pytest
import torch
from torch.testing import assert_close

from detrex.modeling.backbone.features.coverage import Coverage
from detrex.modeling.backbone.features.input_size import InputSize, pad_to, round_up


def test_str__says_what_is_done():
    assert str(InputSize()) == "images of any size"
    assert str(InputSize(14, keywords={"a": True})) == (
        "images are padded to multiples of 14, built with a=True"
    )
    assert str(InputSize(tile=(224, 192))) == "images are cut into tiles of 224 x 192"


@pytest.mark.parametrize(
    ("rule", "size", "fitted"),
    [
        (InputSize(), (37, 53), (37, 53)),
        (InputSize(14), (37, 53), (42, 56)),
        (InputSize(14, cells=(4, 32)), (37, 53), (70, 70)),
        (InputSize(tile=(12, 20)), (13, 20), (24, 20)),
    ],
)
def test_fitted_size(rule, size, fitted):
    assert rule.fitted_size(size) == fitted


def test_split_and_merge__undo_each_other_and_follow_the_rows():
    rule = InputSize(tile=(6, 10))
    images = torch.randn(2, 3, 18, 20)
    tiles = rule.split(images)
    expected = [
        image[:, 6 * row : 6 * row + 6, 10 * column : 10 * column + 10]
        for image in images
        for row in range(3)
        for column in range(2)
    ]
    assert_close(tiles, torch.stack(expected), rtol=0, atol=0)
    assert_close(rule.merge(tiles, (18, 20)), images, rtol=0, atol=0)
    assert_close(rule.merge(tiles[:, :, ::2, ::2], (18, 20)), images[:, :, ::2, ::2])


def test_split__leaves_whole_images_alone():
    images = torch.randn(2, 3, 6, 10)
    assert InputSize(32).split(images) is images
    assert InputSize(tile=(6, 10)).split(images) is images
    assert InputSize(tile=(6, 10)).merge(images, (6, 10)) is images


def test_pad_to__adds_zeros_at_the_right_and_the_bottom():
    images = torch.randn(2, 3, 5, 7)
    padded = pad_to(images, (6, 11))
    assert_close(padded[:, :, :5, :7], images, rtol=0, atol=0)
    assert padded[:, :, 5:].abs().max() == padded[:, :, :, 7:].abs().max() == 0
    assert pad_to(images, (5, 7)) is images


def test_round_up():
    assert [round_up(n, 7) for n in (0, 1, 7, 8)] == [0, 7, 7, 14]


def test_fitted_size__with_coverage():
    rule = InputSize(6, coverage=Coverage(4, 8, 30))
    assert rule.fitted_size((5, 37)) == (36, 48)
    assert (rule.size_divisibility, rule.is_free) == (6, False)
    assert not InputSize(coverage=Coverage(least=2)).is_free
    assert InputSize().is_free
    assert "multiples of 6 (filled up inside to multiples of 4, by 8 on every side" in str(rule)


def test_pad_to__margin_on_every_side():
    images = torch.randn(2, 3, 5, 7)
    padded = pad_to(images, (6, 11), 2)
    assert padded.shape == (2, 3, 10, 15)
    assert_close(padded[:, :, 2:7, 2:9], images, rtol=0, atol=0)
    assert_close(padded.abs().sum(), images.abs().sum())
