"""Levels planned from hand-made maps, and resampling against the place of each cell."""

import dataclasses

import pytest
from omegaconf import ListConfig

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Coverage
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.feature_pyramid import FeaturePyramid
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.features.output_levels import (
    OutputSpec,
    level_name,
    plan_levels,
    requested_strides,
    sources_of,
)
from detrex.modeling.pixel_statistics import IMAGENET


def features(*strides, channels=5):
    return [FeatureInfo(str(i), i, channels + i, stride) for i, stride in enumerate(strides)]


def plan(strides, offered, one_each=False):
    return [
        (lv.name, lv.source.source, lv.resampled_stride, lv.log2_scale, lv.learned)
        for lv in plan_levels(strides, features(*offered), one_each)
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
def test_requested_strides__by_stride_lists_what_there_is(given):
    with pytest.raises(BackboneError, match=r"net has maps of the strides 4, 8, 14, 16 \(32 can"):
        requested_strides(given, None, (4, 8, 14, 16), "net")


@pytest.mark.parametrize("given", [8, 8.5, "8", (8.0,), (True,)])
def test_requested_strides__by_stride_must_be_integers(given):
    with pytest.raises(TypeError, match="sequence of integers such as"):
        requested_strides(given, None, (8, 16), "net")


def test_requested_strides__by_stride_keeps_the_order():
    assert requested_strides((32, 8), None, (8, 16, 32), "net") == [32, 8]


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


def spec(*strides, **input_size):
    rule = InputSize(**input_size)
    return NetworkSpec("net", tuple(features(*strides)), rule, (64, 64), 3, IMAGENET)


def by_stride(network, *strides, out_channels=None):
    levels = plan_levels(strides, network.features)
    return OutputSpec.of(network, sources_of(levels, network.input_size), levels, out_channels)


def test_output_spec__maps_that_are_there_need_no_levels():
    outputs = by_stride(spec(4, 8, 16, 32), 8, 32)
    assert outputs.levels is None
    assert outputs.features is outputs.maps
    assert outputs.input_size.is_free
    assert [(f.name, f.source) for f in outputs.maps] == [("res3", 1), ("res5", 3)]


def test_output_spec__maps_of_tiles_may_need_resampling():
    outputs = by_stride(spec(8, 16, 32, tile=(224, 224)), 8, 32)
    assert outputs.levels == tuple(plan_levels((8, 32), outputs.maps))
    assert outputs.input_size == InputSize(tile=(224, 224), cells=(8, 32))


@pytest.mark.parametrize(("out_channels", "widths"), [(None, [5, 6]), (9, [9, 9])])
def test_output_spec__says_how_each_level_is_made(out_channels, widths):
    outputs = by_stride(spec(14, 14), 8, 32, out_channels=out_channels)
    assert [feature.derivation for feature in outputs.features] == [
        "resampled to stride 16, learned pyramid level x2",
        "resampled to stride 16, learned pyramid level x1/2",
    ]
    assert list(outputs.features.channels.values()) == [widths[1]] * 2
    assert outputs.features.strides == {"res3": 8, "res5": 32}
    assert list(FeaturePyramid(outputs.levels, out_channels).channels.values()) == [widths[1]] * 2


def test_output_spec__coverage_satisfies_all():
    needs = (Coverage(4, 0, 8), Coverage(6, 32, 1))
    network = spec(8, 16)
    maps = [
        dataclasses.replace(f, coverage=need)
        for f, need in zip(network.features, needs, strict=True)
    ]
    network = dataclasses.replace(network, features=tuple(maps))
    assert by_stride(network, 8, 16).input_size.coverage == Coverage(12, 32, 8)
    by_index = OutputSpec.of(network, network.features)
    assert by_index.input_size.coverage == Coverage(12, 32, 8).without_margin
    maps[1] = dataclasses.replace(maps[1], name="b", coverage=None)
    with pytest.raises(BackboneError, match="net has a map 'b' that does not follow"):
        OutputSpec.of(network, maps)


def test_output_spec__out_channels_for_nothing():
    network = spec(8, 16)
    with pytest.raises(BackboneError, match=r"out_channels=7, but every output .*\(0: 5, 1: 6\)"):
        OutputSpec.of(network, network.features, None, 7)


def test_output_spec__of_tiles_are_levels_that_are_merged():
    network = spec(8, 16, tile=(32, 32))
    outputs = OutputSpec.of(network, network.features)
    assert [level.is_direct for level in outputs.levels] == [True, True]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"multiple": 4}, InputSize(28, cells=(8, 16))),
        ({"tile": (224, 224)}, InputSize(tile=(224, 224), cells=(8, 16))),
    ],
)
def test_output_spec__widens_the_multiple_for_resampled_maps(rule, expected):
    assert by_stride(spec(7, 14, 14, **rule), 8, 16).input_size == expected
