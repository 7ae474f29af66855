"""Rules found on networks made for the purpose, and fitting against plain slicing."""

import logging

import pytest
import torch
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Coverage
from detrex.modeling.backbone.features.input_size import (
    InputRule,
    find_input_rule,
    pad_to,
    round_up,
)


def network(accepts, strides=(8, 16)):
    """Gives sizes of maps, rounded up, for the image sizes that `accepts` lets through."""

    def run(size):
        if not accepts(*size):
            raise RuntimeError("no\nsuch size")
        return [tuple(-(-side // stride) for side in size) for stride in strides]

    return run


def rule_of(accepts, native=(224, 224), strides=(8, 16)):
    return find_input_rule("net", [({}, network(accepts, strides))], native, strides)


def test_find_input_rule__nothing_to_do():
    rule = rule_of(lambda h, w: True)
    assert rule == InputRule()
    assert rule.size_divisibility == 0


@pytest.mark.parametrize("multiple", [32, 64, 224])
def test_find_input_rule__multiples(multiple):
    rule = rule_of(lambda h, w: h % multiple == w % multiple == 0)
    assert (rule.multiple, rule.tile, rule.size_divisibility) == (multiple, None, multiple)


def test_find_input_rule__patches_of_a_plain_network():
    rule = rule_of(lambda h, w: h % 14 == w % 14 == 0, (518, 518), (14, 14, 14))
    assert rule.multiple == 14


def test_find_input_rule__prefers_the_first_way_to_build():
    runs = [({}, network(lambda h, w: False)), ({"free": True}, network(lambda h, w: True))]
    assert find_input_rule("net", runs, (224, 224), (8, 16)).keywords == {"free": True}


def test_find_input_rule__one_size_becomes_tiles():
    rule = rule_of(lambda h, w: (h, w) == (224, 192), native=(224, 192))
    assert (rule.tile, rule.size_divisibility) == ((224, 192), 1344)


def test_find_input_rule__one_large_size_is_no_multiple():
    """All sizes that are tried are rounded up to the one, which tells nothing of its multiples."""
    assert rule_of(lambda h, w: h == w == 800, native=(800, 800)).tile == (800, 800)


def test_find_input_rule__maps_that_do_not_grow_become_tiles():
    def run(size):
        return [(20, 20)]

    assert find_input_rule("net", [({}, run)], (240, 240), (12,)).tile == (240, 240)


@pytest.mark.parametrize(
    "cells",
    [
        lambda side, stride: round(0.93 * side / stride),
        lambda side, stride: round(side / stride - 0.02 * side),
        lambda side, stride: -(-side // stride) + 2,
    ],
    ids=["too slow", "too slow by a share of the side", "beyond the image"],
)
def test_find_input_rule__maps_of_another_stride_become_tiles(cells):
    """Cells that are not where the published stride says are no use, however near it is."""

    def run(size):
        return [tuple(cells(side, stride) for side in size) for stride in (8, 16)]

    assert find_input_rule("net", [({}, run)], (224, 224), (8, 16)).tile == (224, 224)


def test_find_input_rule__lost_borders_do_not_matter():
    def run(size):
        return [tuple(-(-side // stride) - 2 for side in size) for stride in (8, 16)]

    rule = find_input_rule("net", [({}, run)], (224, 224), (8, 16))
    assert (rule.multiple, rule.tile) == (1, None)


def test_find_input_rule__nothing_works():
    with pytest.raises(
        BackboneError, match=r"net could not be .* 224 x 224 .*\(RuntimeError: no\)"
    ):
        rule_of(lambda h, w: False)


def test_str__says_what_is_done():
    assert str(InputRule()) == "images of any size"
    assert str(InputRule(14, keywords={"a": True})) == (
        "images are padded to multiples of 14, built with a=True"
    )
    assert str(InputRule(tile=(224, 192))) == "images are cut into tiles of 224 x 192"


@pytest.mark.parametrize(
    ("rule", "grid", "size", "fitted"),
    [
        (InputRule(), 1, (37, 53), (37, 53)),
        (InputRule(14), 1, (37, 53), (42, 56)),
        (InputRule(14), 32, (37, 53), (70, 70)),
        (InputRule(tile=(12, 20)), 1, (13, 20), (24, 20)),
    ],
)
def test_fitted_size(rule, grid, size, fitted):
    assert rule.fitted_size(size, grid) == fitted


def test_cut_and_join__undo_each_other_and_follow_the_rows():
    rule = InputRule(tile=(6, 10))
    images = torch.randn(2, 3, 18, 20)
    tiles = rule.cut(images)
    expected = [
        image[:, 6 * row : 6 * row + 6, 10 * column : 10 * column + 10]
        for image in images
        for row in range(3)
        for column in range(2)
    ]
    assert_close(tiles, torch.stack(expected), rtol=0, atol=0)
    assert_close(rule.join(tiles, (18, 20)), images, rtol=0, atol=0)
    assert_close(rule.join(tiles[:, :, ::2, ::2], (18, 20)), images[:, :, ::2, ::2])


def test_cut__leaves_whole_images_alone():
    images = torch.randn(2, 3, 6, 10)
    assert InputRule(32).cut(images) is images
    assert InputRule(tile=(6, 10)).cut(images) is images
    assert InputRule(tile=(6, 10)).join(images, (6, 10)) is images


def test_pad_to__adds_zeros_at_the_right_and_the_bottom():
    images = torch.randn(2, 3, 5, 7)
    padded = pad_to(images, (6, 11))
    assert_close(padded[:, :, :5, :7], images, rtol=0, atol=0)
    assert padded[:, :, 5:].abs().max() == padded[:, :, :, 7:].abs().max() == 0
    assert pad_to(images, (5, 7)) is images


def test_round_up():
    assert [round_up(n, 7) for n in (0, 1, 7, 8)] == [0, 7, 7, 14]


@pytest.mark.parametrize("error", [TypeError, KeyError, NotImplementedError, AttributeError])
def test_find_input_rule__fault_is_told_and_not_hidden_by_tiles(error):
    def run(size):
        if size != (224, 224):
            raise error("a fault")
        return [(28, 28)]

    with pytest.raises(BackboneError, match=rf"net failed in a trial .* with {error.__name__}"):
        find_input_rule("net", [({}, run)], (224, 224), (8,))


@pytest.mark.parametrize("error", [AssertionError, ValueError, RuntimeError])
def test_find_input_rule__tiles_are_warned_of_once(error, caplog):
    def run(size):
        if size != (224, 224):
            raise error("height must be 224")
        return [(28, 28)]

    who = f"net of {error.__name__}"
    with caplog.at_level(logging.WARNING, logger="detrex"):
        for _ in range(2):
            assert find_input_rule(who, [({}, run)], (224, 224), (8,)).tile == (224, 224)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        f"{who} takes images of 224 x 224 only ({error.__name__}: height must be 224): any other "
        "is cut into tiles of that size"
    )


def test_fitted_size__with_coverage():
    rule = InputRule(6, coverage=Coverage(4, 8, 30))
    assert rule.fitted_size((5, 37)) == (36, 48)
    assert (rule.size_divisibility, rule.is_free) == (6, False)
    assert not InputRule(coverage=Coverage(least=2)).is_free
    assert InputRule().is_free
    assert "multiples of 6 (filled up inside to multiples of 4, by 8 on every side" in str(rule)


def test_pad_to__margin_on_every_side():
    images = torch.randn(2, 3, 5, 7)
    padded = pad_to(images, (6, 11), 2)
    assert padded.shape == (2, 3, 10, 15)
    assert_close(padded[:, :, 2:7, 2:9], images, rtol=0, atol=0)
    assert_close(padded.abs().sum(), images.abs().sum())
