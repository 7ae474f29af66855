"""Levels planned from hand-made maps, and resampling against the place of each cell."""

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from omegaconf import ListConfig
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import Feature
from detrex.modeling.backbone.features.input_size import InputRule
from detrex.modeling.backbone.features.output_levels import (
    FeaturePyramid,
    check_out_strides,
    level_name,
    plan_levels,
    requested_strides,
    taps_and_levels,
    whole_cells,
)


def taps(*strides, channels=5):
    return [Feature(str(i), i, channels + i, stride) for i, stride in enumerate(strides)]


def plan(strides, offered, one_each=False):
    return [
        (lv.name, lv.tap.source, lv.resampled_stride, lv.doublings, lv.learned)
        for lv in plan_levels(strides, taps(*offered), one_each)
    ]


def test_plan_levels__takes_the_last_map_of_a_stride():
    assert plan((8, 32), (2, 4, 8, 8, 16, 32)) == [
        ("res3", 3, None, 0, False),
        ("res5", 5, None, 0, False),
    ]


def test_plan_levels__plain_network():
    assert plan((4, 8, 16, 32), (16, 16, 16)) == [
        ("res2", 2, None, 2, True),
        ("res3", 2, None, 1, True),
        ("res4", 2, None, 0, True),
        ("res5", 2, None, -1, True),
    ]


def test_plan_levels__one_tap_each():
    levels = plan((8, 16, 32), (16, 16, 16), one_each=True)
    assert [source for _, source, *_ in levels] == [0, 1, 2]


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ((16, 32, 64), [(0, None, 1), (0, None, 0), (1, None, 0)]),
        ((4, 8, 16), [(1, None, 0), (2, None, 0), (2, None, -1)]),
        ((14, 14), [(1, 16, 1), (1, 16, 0), (1, 16, -1)]),
        ((12, 17), [(0, 8, 0), (1, 16, 0), (1, 16, -1)]),
        ((7, 14, 28), [(0, 8, 0), (1, 16, 0), (2, 32, 0)]),
        ((8, 8), [(1, None, 0), (1, None, -1), (1, None, -2)]),
        ((32, 32), [(1, None, 2), (1, None, 1), (1, None, 0)]),
    ],
)
def test_plan_levels__completes_what_is_missing(offered, expected):
    assert [(s, r, d) for _, s, r, d, _ in plan((8, 16, 32), offered)] == expected


@pytest.mark.parametrize("given", [(), (8, 64), (8, 8), (3,), (14, 16)])
def test_check_out_strides__lists_what_there_is(given):
    with pytest.raises(BackboneError, match=r"net has maps of the strides 4, 8, 14, 16 \(32 can"):
        check_out_strides(given, (4, 8, 14, 16), "net")


@pytest.mark.parametrize("given", [8, 8.5, "8", (8.0,), (True,)])
def test_check_out_strides__must_be_integers(given):
    with pytest.raises(TypeError, match="sequence of integers such as"):
        check_out_strides(given, (8, 16), "net")


def test_check_out_strides__keeps_the_order():
    assert check_out_strides((32, 8), (8, 16, 32), "net") == [32, 8]


@pytest.mark.parametrize(
    ("offered", "names", "expected"),
    [
        ((4, 8, 16, 32), ["res5", "res3"], [32, 8]),
        ((2, 4, 8), ("res1", "res2", "res5"), [2, 4, 32]),  # what the network has, and a made one
        ((16, 32, 64), ListConfig(["res4", "res6"]), [16, 64]),
        ((12, 17), ["res4"], [16]),  # of two strides with one name the power of two
        ((14,), ["res4"], [16]),
        ((24, 48), ["res6"], [48]),  # 64 is not made
    ],
)
def test_requested_strides__are_those_of_the_names(offered, names, expected):
    assert requested_strides(None, names, offered, "net") == expected


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["res3", "ress4"], r"net gives the levels res1, res2.*got.*'ress4'.*Did you mean 'res4'"),
        (["res6"], r"gives the levels res1, res2, res3, res4, res5, got out_features=\['res6'\]"),
        (["res3", "res3"], "each at most once"),
        ([], "name some of these"),
        (["p3"], "name some of these"),
    ],
)
def test_requested_strides__names_what_there_is(names, match):
    with pytest.raises(BackboneError, match=match):
        requested_strides(None, names, (2, 4, 8, 16), "net")


@pytest.mark.parametrize("given", ["res3", 3, [3], True])
def test_requested_strides__must_be_names(given):
    with pytest.raises(TypeError, match="sequence of names such as"):
        requested_strides(None, given, (8, 16), "net")


def test_requested_strides__says_it_once():
    with pytest.raises(BackboneError, match=r"\['res3'\] beside out_strides=\(8,\).*leave one"):
        requested_strides((8,), ["res3"], (8, 16), "net")


def test_level_name():
    assert [level_name(stride) for stride in (2, 8, 64)] == ["res1", "res3", "res6"]


def test_taps_and_levels__maps_that_are_there_need_no_pyramid():
    chosen, levels = taps_and_levels(plan_levels((8, 32), taps(4, 8, 16, 32)), InputRule())
    assert levels is None
    assert [(tap.name, tap.source) for tap in chosen] == [("res3", 1), ("res5", 3)]


def test_taps_and_levels__maps_of_tiles_may_need_resampling():
    planned = plan_levels((8, 32), taps(8, 16, 32))
    assert taps_and_levels(planned, InputRule(tile=(224, 224)))[1] == planned


def test_whole_cells__widens_the_multiple_for_resampled_maps():
    levels = plan_levels((8, 16), taps(7, 14, 14))
    assert whole_cells(InputRule(4), levels).multiple == 28
    assert whole_cells(InputRule(tile=(224, 224)), levels) == InputRule(tile=(224, 224))


def cell_centres(stride, count):
    return (torch.arange(count, dtype=torch.float64) + 0.5) * stride


def test_forward__resampling_leaves_cells_where_they_are():
    # A map that holds each cell's vertical position in pixels must hold it after resampling too.
    levels = plan_levels((8, 16), taps(7, 14, 14, channels=1))
    pyramid = FeaturePyramid(levels)
    height, width = 224, 448
    maps = {}
    for tap in {level.tap.name: level.tap for level in levels}.values():
        rows = cell_centres(tap.stride, height // tap.stride)
        maps[tap.name] = rows[None, None, :, None].expand(2, 1, -1, width // tap.stride)
    outputs = pyramid(maps, {name: (s, s) for name, s in (("0", 7), ("2", 14))})
    for name, stride in (("res3", 8), ("res4", 16)):
        expected = cell_centres(stride, height // stride)
        assert outputs[name].shape == (2, 1, height // stride, width // stride)
        assert_close(outputs[name][1, 0, 1:-1, 3], expected[1:-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("out_channels", [None, 7])
def test_forward__sizes_and_widths(out_channels):
    levels = plan_levels((4, 8, 16, 32), taps(16, 16, channels=6))
    pyramid = FeaturePyramid(levels, out_channels)
    outputs = pyramid({"1": torch.randn(2, 7, 6, 10)}, {"1": (16, 16)})
    width = out_channels or 7
    assert {name: tuple(m.shape) for name, m in outputs.items()} == {
        "res2": (2, width, 24, 40),
        "res3": (2, width, 12, 20),
        "res4": (2, width, 6, 10),
        "res5": (2, width, 3, 5),
    }
    assert pyramid.table.channels == dict.fromkeys(outputs, width)
    assert pyramid.table.strides == {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class _OneMap(Backbone):
    """Gives its input as the map of a plain network of stride 16."""

    def __init__(self, channels):
        super().__init__()
        self._out_features = ["map"]
        self._out_feature_channels, self._out_feature_strides = {"map": channels}, {"map": 16}

    def forward(self, x):
        return {"map": x}


def _randomised(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.6)
    return module.double()


def test_forward__levels_of_a_plain_network_are_those_of_detectron2():
    pyramid = _randomised(FeaturePyramid(plan_levels((4, 8, 16, 32), taps(16, channels=8)), 7))
    theirs = SimpleFeaturePyramid(_OneMap(8), "map", 7, (4.0, 2.0, 1.0, 0.5), norm="LN").double()
    ours = list(pyramid.state_dict().values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours, strict=True)))
    x = torch.randn(2, 8, 6, 10, dtype=torch.float64)
    outputs, expected = pyramid({"0": x}, {"0": (16, 16)}), theirs(x)
    assert list(outputs) == ["res2", "res3", "res4", "res5"]
    for output, level in zip(outputs.values(), expected.values(), strict=True):
        assert_close(output, level, rtol=1e-9, atol=1e-9)


def _channel_norm(x, weight, bias):
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (var + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]


def _naive_level(x, parameters, doublings):
    """One level of (n, c, h, w) in sums over single places."""
    parameters = iter(parameters)
    for step in range(doublings):
        if step:
            x = _channel_norm(x, next(parameters), next(parameters))
            x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
        x = torch.einsum("nchw,coij->nohiwj", x, next(parameters)).flatten(4, 5).flatten(2, 3)
        x = x + next(parameters)[:, None, None]
    for _ in range(-doublings):
        height, width = x.shape[2:]
        windows = [x[..., y : y + 2, z : z + 2].amax((2, 3)) for y in range(0, height, 2)
                   for z in range(0, width, 2)]  # fmt: skip
        x = torch.stack(windows, -1).unflatten(-1, (-(-height // 2), -(-width // 2)))
    x = torch.einsum("nchw,oc->nohw", x, next(parameters)[..., 0, 0])
    x = _channel_norm(x, next(parameters), next(parameters))
    kernel, padded = next(parameters), F.pad(x, (1, 1, 1, 1))
    height, width = x.shape[2:]
    x = sum(
        torch.einsum("nchw,oc->nohw", padded[..., y : y + height, z : z + width], kernel[..., y, z])
        for y in range(3)
        for z in range(3)
    )
    return _channel_norm(x, next(parameters), next(parameters))


@pytest.mark.parametrize(
    ("offered", "stride", "source", "doublings"),
    [
        ((4, 8, 16), 32, "2", -1),
        ((4, 8), 32, "1", -2),
        ((16, 32, 64), 8, "0", 1),
        ((16, 32), 4, "0", 2),
        ((32, 32), 4, "1", 3),
        ((8, 8), 8, "1", 0),
    ],
)
@pytest.mark.parametrize("size", [(5, 7), (1, 2)])
def test_forward__completed_level_is_that_of_plain_sums(offered, stride, source, doublings, size):
    (level,) = plan_levels((stride,), taps(*offered, channels=8))
    assert (level.tap.name, level.doublings) == (source, doublings)
    pyramid = _randomised(FeaturePyramid([level], 6))
    x = torch.randn(2, level.tap.channels, *size, dtype=torch.float64)
    (output,) = pyramid({source: x}, {source: (level.tap.stride,) * 2}).values()
    expected = _naive_level(x, pyramid.parameters(), doublings)
    assert_close(output, expected, rtol=1e-9, atol=1e-9)


def test_forward__direct_levels_are_untouched():
    pyramid = FeaturePyramid(plan_levels((8, 16, 32), taps(4, 8, 16)))
    maps = {"1": torch.randn(2, 6, 9, 11), "2": torch.randn(2, 7, 5, 6)}
    outputs = pyramid(maps, {"1": (8, 8), "2": (16, 16)})
    assert outputs["res3"] is maps["1"]
    assert outputs["res4"] is maps["2"]
    assert outputs["res5"].shape == (2, 7, 3, 3)
    assert {name.split(".")[1] for name in pyramid.state_dict()} == {"p5"}


@pytest.mark.parametrize("out_channels", [0, -3, 2.5, True])
def test_init__out_channels_must_be_positive(out_channels):
    with pytest.raises(BackboneError, match="out_channels must be a positive integer"):
        FeaturePyramid(plan_levels((8,), taps(16, 16)), out_channels)


def test_table__says_how_each_level_is_made():
    table = FeaturePyramid(plan_levels((8, 32), taps(14, 14))).table
    assert [feature.made for feature in table] == [
        "resampled to stride 16, learned pyramid level x2",
        "resampled to stride 16, learned pyramid level x1/2",
    ]
    assert math.isclose(table.features[0].channels, 6)
