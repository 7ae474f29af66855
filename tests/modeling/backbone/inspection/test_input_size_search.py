"""Which image sizes a network takes is found by trying, the mildest way first."""

import logging

import pytest
import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Coverage
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.inspection.input_size_search import find_coverage, search_input_size


def network(accepts, strides=(8, 16)):
    """Gives sizes of maps, rounded up, for the image sizes that `accepts` lets through."""

    def run(size):
        if not accepts(*size):
            raise RuntimeError("no\nsuch size")
        return [tuple(-(-side // stride) for side in size) for stride in strides]

    return run


def rule_of(accepts, native=(224, 224), strides=(8, 16)):
    return search_input_size("net", [({}, network(accepts, strides))], native, strides)


def test_search_input_size__nothing_to_do():
    rule = rule_of(lambda h, w: True)
    assert rule == InputSize()
    assert rule.size_divisibility == 0


@pytest.mark.parametrize("multiple", [32, 64, 224])
def test_search_input_size__multiples(multiple):
    rule = rule_of(lambda h, w: h % multiple == w % multiple == 0)
    assert (rule.multiple, rule.tile, rule.size_divisibility) == (multiple, None, multiple)


def test_search_input_size__patches_of_a_plain_network():
    rule = rule_of(lambda h, w: h % 14 == w % 14 == 0, (518, 518), (14, 14, 14))
    assert rule.multiple == 14


def test_search_input_size__prefers_the_first_way_to_build():
    runs = [({}, network(lambda h, w: False)), ({"free": True}, network(lambda h, w: True))]
    assert search_input_size("net", runs, (224, 224), (8, 16)).keywords == {"free": True}


def test_search_input_size__one_size_becomes_tiles():
    rule = rule_of(lambda h, w: (h, w) == (224, 192), native=(224, 192))
    assert (rule.tile, rule.size_divisibility) == ((224, 192), 1344)


def test_search_input_size__one_large_size_is_no_multiple():
    """All sizes that are tried are rounded up to the one, which tells nothing of its multiples."""
    assert rule_of(lambda h, w: h == w == 800, native=(800, 800)).tile == (800, 800)


def test_search_input_size__maps_that_do_not_grow_become_tiles():
    def run(size):
        return [(20, 20)]

    assert search_input_size("net", [({}, run)], (240, 240), (12,)).tile == (240, 240)


@pytest.mark.parametrize(
    "cells",
    [
        lambda side, stride: round(0.93 * side / stride),
        lambda side, stride: round(side / stride - 0.02 * side),
        lambda side, stride: -(-side // stride) + 2,
    ],
    ids=["too slow", "too slow by a share of the side", "beyond the image"],
)
def test_search_input_size__maps_of_another_stride_become_tiles(cells):
    """Cells that are not where the published stride says are no use, however near it is."""

    def run(size):
        return [tuple(cells(side, stride) for side in size) for stride in (8, 16)]

    assert search_input_size("net", [({}, run)], (224, 224), (8, 16)).tile == (224, 224)


def test_search_input_size__lost_borders_do_not_matter():
    def run(size):
        return [tuple(-(-side // stride) - 2 for side in size) for stride in (8, 16)]

    rule = search_input_size("net", [({}, run)], (224, 224), (8, 16))
    assert (rule.multiple, rule.tile) == (1, None)


def test_search_input_size__nothing_works():
    with pytest.raises(
        BackboneError, match=r"net could not be .* 224 x 224 .*\(RuntimeError: no\)"
    ):
        rule_of(lambda h, w: False)


@pytest.mark.parametrize("error", [TypeError, KeyError, NotImplementedError, AttributeError])
def test_search_input_size__fault_is_told_and_not_hidden_by_tiles(error):
    def run(size):
        if size != (224, 224):
            raise error("a fault")
        return [(28, 28)]

    with pytest.raises(BackboneError, match=rf"net failed in a trial .* with {error.__name__}"):
        search_input_size("net", [({}, run)], (224, 224), (8,))


@pytest.mark.parametrize("error", [AssertionError, ValueError, RuntimeError])
def test_search_input_size__tiles_are_warned_of_once(error, caplog):
    def run(size):
        if size != (224, 224):
            raise error("height must be 224")
        return [(28, 28)]

    who = f"net of {error.__name__}"
    with caplog.at_level(logging.WARNING, logger="detrex"):
        for _ in range(2):
            assert search_input_size(who, [({}, run)], (224, 224), (8,)).tile == (224, 224)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        f"{who} takes images of 224 x 224 only ({error.__name__}: height must be 224): any other "
        "is cut into tiles of that size"
    )


def conv(kernel, stride, padding=0):
    return nn.Conv2d(1, 1, kernel, stride, padding, device="meta")


def run_of(*layers):
    """Runs layers one after another; each is a map."""

    def run(size):
        image, sizes = torch.empty(1, 1, *size, device="meta"), []
        for layer in layers:
            image = layer(image)
            sizes.append(tuple(image.shape[-2:]))
        return sizes

    return run


DOWN = [conv(2, 2) for _ in range(3)]
ROUNDED_DOWN = [Coverage(8, 0, 32), Coverage(16, 0, 32), Coverage(32)]


@pytest.mark.parametrize(
    ("layers", "strides", "expected"),
    [
        ([conv(3, 2, 1), conv(3, 2, 1)], (2, 4), [Coverage(), Coverage()]),
        ([conv(7, 4, 3), *DOWN], (4, 8, 16, 32), [Coverage(1, 0, 32), *ROUNDED_DOWN]),
        ([conv(4, 4), *DOWN], (4, 8, 16, 32), [Coverage(4, 0, 32), *ROUNDED_DOWN]),
        ([conv(7, 2), conv(3, 2, 1)], (2, 4), [Coverage(4, 4), Coverage(4, 4)]),
    ],
)
def test_find_coverage__is_the_least_that_covers(layers, strides, expected):
    found = find_coverage("net", run_of(*layers), 1, strides)
    assert found == expected
    run = run_of(*layers)
    for place, (coverage, stride) in enumerate(zip(found, strides, strict=True)):
        for side in (1, 5, 31, 32, 33, 100, 127, 256, 339):
            whole = coverage.padded(side)
            cells = run((whole + 2 * coverage.margin, whole + 2 * coverage.margin))[place][0]
            first = coverage.first_cell(cells, whole, stride)
            assert cells - first >= -(-side // stride)


def test_find_coverage__of_a_map_that_is_no_map():
    assert find_coverage("net", lambda size: [(7, 7)], 1, (8,)) == [None]


def test_find_coverage__other_errors_are_told():
    def run(size):
        raise TypeError("no such keyword")

    with pytest.raises(BackboneError, match=r"net failed in a trial .* TypeError: no such keyword"):
        find_coverage("net", run, 1, (8,))


@pytest.mark.parametrize("side", [256, 320, 328, 385, 432])
def test_find_coverage__holds_at_every_multiple(side):
    pools = [nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3)]
    run, strides = run_of(conv(7, 2), *pools), (2, 4, 8, 16)
    for place, coverage in enumerate(find_coverage("net", run, 1, strides)):
        whole = coverage.padded(side)
        cells = run((whole + 2 * coverage.margin, 64 + 2 * coverage.margin))[place][0]
        first = coverage.first_cell(cells, whole, strides[place])
        assert cells - first >= -(-side // strides[place])
