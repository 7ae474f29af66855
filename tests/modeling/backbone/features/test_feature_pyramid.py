"""The learned layers of made levels, against plain sums and against detectron2."""

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.feature_pyramid import FeaturePyramid
from detrex.modeling.backbone.features.output_levels import (
    plan_levels,
)


def features(*strides, channels=5):
    return [FeatureInfo(str(i), i, channels + i, stride) for i, stride in enumerate(strides)]


def cell_centres(stride, count):
    return (torch.arange(count, dtype=torch.float64) + 0.5) * stride


def test_forward__resampling_leaves_cells_where_they_are():
    # A map that holds each cell's vertical position in pixels must hold it after resampling too.
    levels = plan_levels((8, 16), features(7, 14, 14, channels=1))
    pyramid = FeaturePyramid(levels)
    height, width = 224, 448
    maps = {}
    for feature in {level.source.name: level.source for level in levels}.values():
        rows = cell_centres(feature.stride, height // feature.stride)
        maps[feature.name] = rows[None, None, :, None].expand(2, 1, -1, width // feature.stride)
    outputs = pyramid(maps, {name: (s, s) for name, s in (("0", 7), ("2", 14))})
    for name, stride in (("res3", 8), ("res4", 16)):
        expected = cell_centres(stride, height // stride)
        assert outputs[name].shape == (2, 1, height // stride, width // stride)
        assert_close(outputs[name][1, 0, 1:-1, 3], expected[1:-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("out_channels", [None, 7])
def test_forward__sizes_and_widths(out_channels):
    levels = plan_levels((4, 8, 16, 32), features(16, 16, channels=6))
    pyramid = FeaturePyramid(levels, out_channels)
    outputs = pyramid({"1": torch.randn(2, 7, 6, 10)}, {"1": (16, 16)})
    width = out_channels or 7
    assert {name: tuple(m.shape) for name, m in outputs.items()} == {
        "res2": (2, width, 24, 40),
        "res3": (2, width, 12, 20),
        "res4": (2, width, 6, 10),
        "res5": (2, width, 3, 5),
    }


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
    pyramid = _randomised(FeaturePyramid(plan_levels((4, 8, 16, 32), features(16, channels=8)), 7))
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


def _naive_level(x, parameters, log2_scale):
    """One level of (n, c, h, w) in sums over single places."""
    parameters = iter(parameters)
    for step in range(log2_scale):
        if step:
            x = _channel_norm(x, next(parameters), next(parameters))
            x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
        x = torch.einsum("nchw,coij->nohiwj", x, next(parameters)).flatten(4, 5).flatten(2, 3)
        x = x + next(parameters)[:, None, None]
    for _ in range(-log2_scale):
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
    ("offered", "stride", "source", "log2_scale"),
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
def test_forward__completed_level_is_that_of_plain_sums(offered, stride, source, log2_scale, size):
    (level,) = plan_levels((stride,), features(*offered, channels=8))
    assert (level.source.name, level.log2_scale) == (source, log2_scale)
    pyramid = _randomised(FeaturePyramid([level], 6))
    x = torch.randn(2, level.source.channels, *size, dtype=torch.float64)
    (output,) = pyramid({source: x}, {source: (level.source.stride,) * 2}).values()
    expected = _naive_level(x, pyramid.parameters(), log2_scale)
    assert_close(output, expected, rtol=1e-9, atol=1e-9)


def test_forward__direct_levels_are_untouched():
    pyramid = FeaturePyramid(plan_levels((8, 16, 32), features(4, 8, 16)))
    maps = {"1": torch.randn(2, 6, 9, 11), "2": torch.randn(2, 7, 5, 6)}
    outputs = pyramid(maps, {"1": (8, 8), "2": (16, 16)})
    assert outputs["res3"] is maps["1"]
    assert outputs["res4"] is maps["2"]
    assert outputs["res5"].shape == (2, 7, 3, 3)
    assert {name.split(".")[1] for name in pyramid.state_dict()} == {"p5"}


@pytest.mark.parametrize("out_channels", [0, -3, 2.5, True])
def test_init__out_channels_must_be_positive(out_channels):
    with pytest.raises(BackboneError, match="out_channels must be a positive integer"):
        FeaturePyramid(plan_levels((8,), features(16, 16)), out_channels)
