"""Deformable convolution v3, against a loop over points."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from detrex.layers import DCNv3, DCNv3_pytorch, DCNv3Function, dcn_v3, dcnv3_core_pytorch
from tests.reference.loops import dcnv3

GROUP, WIDTH = 2, 3
# kernel, stride, pad and dilation as (y, x), and the scale of the offsets.
GRIDS = {
    "square": ((3, 3), (1, 1), (1, 1), (1, 1), 1.0),
    "unequal padding": ((3, 3), (1, 1), (0, 2), (1, 1), 1.0),
    "unequal everything": ((2, 3), (2, 1), (1, 0), (1, 2), 0.5),
    "even and dilated": ((4, 2), (1, 3), (2, 1), (2, 3), 2.0),
    "one point": ((1, 1), (2, 2), (0, 0), (1, 1), 1.0),
}


def _inputs(kernel, stride, pad, dilation, _scale, dtype=torch.float64, size=(5, 7)):
    torch.manual_seed(0)
    cells = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, pad, dilation, strict=True)
    ]
    points = GROUP * kernel[0] * kernel[1]
    x = torch.randn(2, *size, GROUP * WIDTH, dtype=dtype)
    offset = torch.randn(2, *cells, points * 2, dtype=dtype)
    return x, offset, torch.rand(2, *cells, points, dtype=dtype)


def _arguments(kernel, stride, pad, dilation, scale):
    return (*kernel, *stride, *pad, *dilation, GROUP, WIDTH, scale)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_dcnv3_core__equals_loop(grid):
    inputs = _inputs(*grid)
    observed = dcnv3_core_pytorch(*inputs, *_arguments(*grid))
    assert_close(observed, dcnv3(*inputs, *grid[:4], GROUP, grid[4]))
    by_function = DCNv3Function.apply(*inputs, *_arguments(*grid), 64)
    assert_close(by_function, observed, rtol=0, atol=0)
    turned = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in inputs]
    assert_close(dcnv3_core_pytorch(*turned, *_arguments(*grid)), observed)


@pytest.mark.parametrize("name", ["unequal everything", "unequal padding"])
def test_dcnv3_function__gradients_equal_numeric_ones(name):
    grid = GRIDS[name]
    inputs = [tensor.requires_grad_() for tensor in _inputs(*grid, size=(3, 5))]
    call = lambda *tensors: DCNv3Function.apply(*tensors, *_arguments(*grid), 256)  # noqa: E731
    assert torch.autograd.gradcheck(call, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dcnv3_core__half_precision_samples_in_float32(dtype):
    grid = GRIDS["square"]
    inputs = [t.to(dtype) for t in _inputs(*grid, dtype=torch.float32, size=(3, 300))]
    observed = dcnv3_core_pytorch(*inputs, *_arguments(*grid))
    expected = dcnv3_core_pytorch(*(t.float() for t in inputs), *_arguments(*grid))
    assert observed.dtype == dtype
    assert_close(observed, expected.to(dtype))


def test_dcnv3_core__says_what_does_not_fit():
    grid = GRIDS["square"]
    x, offset, mask = _inputs(*grid)
    with pytest.raises(ValueError, match=r"must be of shape \[2, 5, 7, 36\] and \[2, 5, 7, 18\]"):
        dcnv3_core_pytorch(x, offset[:, 1:], mask, *_arguments(*grid))
    with pytest.raises(ValueError, match="has no 3 x 3 kernel of 2 groups of 3 channels"):
        dcnv3_core_pytorch(x[:, :0], offset, mask, *_arguments((3, 3), (1, 1), (0, 0), (1, 1), 1))
    with pytest.raises(ValueError, match="with 5 channels has no"):
        dcnv3_core_pytorch(x[..., 1:], offset, mask, *_arguments(*grid))


def _layer(**kwargs):
    torch.manual_seed(0)
    layer = DCNv3(**{"channels": 6, "group": 2, **kwargs}).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


OPTIONS = {
    "default": {},
    "stride": {"stride": 2},
    "batch norm": {"norm_layer": "BN", "act_layer": "SiLU"},
    "dilation": {"kernel_size": 5, "dw_kernel_size": 3, "dilation": 2, "pad": 4},
    "center": {"center_feature_scale": True, "offset_scale": 0.5},
    "center and stride": {"center_feature_scale": True, "stride": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_dcnv3__equals_its_steps_one_by_one(options):
    """The paper's equation, with the convolution by the loop and the rest by plain operations."""
    layer, x = _layer(**options), torch.randn(2, 5, 7, 6, dtype=torch.float64)
    stride = options.get("stride", 1)
    first, norm = layer.dw_conv[0], layer.dw_conv[1]
    pad = (first.weight.shape[-1] - 1) // 2
    guide = F.conv2d(x.movedim(-1, 1), first.weight, first.bias, stride, pad, groups=6)
    if options.get("norm_layer") == "BN":
        # A fresh norm has a mean of 0 and a variance of 1.
        guide = guide / (1 + 1e-5) ** 0.5 * norm[0].weight[:, None, None]
        guide = F.silu(guide + norm[0].bias[:, None, None]).movedim(1, -1)
    else:
        guide = guide.movedim(1, -1)
        guide = F.gelu(F.layer_norm(guide, (6,), norm[1].weight, norm[1].bias, 1e-6))
    mask = layer.mask(guide).unflatten(-1, (2, -1)).softmax(-1).flatten(-2)
    value, kernel = layer.input_proj(x), options.get("kernel_size", 3)
    grid = [(kernel,) * 2, (stride,) * 2, (options.get("pad", 1),) * 2]
    grid += [(options.get("dilation", 1),) * 2]
    expected = dcnv3(value, layer.offset(guide), mask, *grid, 2, options.get("offset_scale", 1.0))
    if layer.center_feature_scale:
        logits = guide @ layer.center_feature_scale_proj_weight.T
        share = torch.sigmoid(logits + layer.center_feature_scale_proj_bias)
        share = share[..., [0, 0, 0, 1, 1, 1]]
        expected = expected * (1 - share) + value[:, ::stride, ::stride] * share
    assert_close(layer(x), layer.output_proj(expected))


def test_dcnv3__starts_as_a_box_filter():
    layer, x = DCNv3(channels=4, group=2), torch.randn(1, 4, 5, 4)
    value = layer.input_proj(x).movedim(-1, 1)
    box = F.avg_pool2d(value, 3, stride=1, padding=1).movedim(1, -1)
    assert_close(layer(x), layer.output_proj(box))


@pytest.mark.parametrize(("norm", "index"), [("LN", 1), ("BN", 0)])
def test_dcnv3__has_the_keys_of_the_original(norm, index):
    names = {name for name, _ in DCNv3_pytorch(norm_layer=norm).named_parameters()}
    layers = ["dw_conv.0", f"dw_conv.1.{index}", "offset", "mask", "input_proj", "output_proj"]
    assert names == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_dcnv3__runs_on_meta():
    with torch.device("meta"):
        layer = DCNv3(center_feature_scale=True)
        assert layer(torch.randn(2, 5, 7, 64)).shape == (2, 5, 7, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 5}, "group must divide the 6 channels, got 5"),
        ({"group": 0}, "an integer of at least 1 as group, got 0"),
        ({"kernel_size": (3, 3)}, r"at least 1 as kernel_size, got \(3, 3\)"),
        ({"pad": -1}, "an integer of at least 0 as pad, got -1"),
        ({"pad": False}, "an integer of at least 0 as pad, got False"),
        ({"stride": True}, "an integer of at least 1 as stride, got True"),
        ({"dilation": np.float64(1)}, r"an integer of at least 1 as dilation, got .*1\.0"),
        ({"group": np.int64(0)}, "an integer of at least 1 as group, got .*0"),
        ({"norm_layer": "BN2"}, r"one of LN, BN, got 'BN2'\. Did you mean 'BN'"),
        ({"act_layer": "ReLu"}, r"one of GELU, ReLU, SiLU, got 'ReLu'\. Did you mean 'ReLU'"),
    ],
)
def test_dcnv3__names_what_it_takes(options, message):
    with pytest.raises(ValueError, match=message):
        _layer(**options)


def test_dcnv3__takes_numpys_integers():
    sizes = {"channels": 6, "kernel_size": 3, "dw_kernel_size": 5, "stride": 2, "pad": 2}
    sizes |= {"dilation": 2, "group": 3}
    expected = _layer(**sizes, center_feature_scale=True)
    observed = _layer(**{k: np.int32(v) for k, v in sizes.items()}, center_feature_scale=True)
    assert {type(getattr(observed, name)) for name in ("kernel_size", "pad", "group")} == {int}
    x = torch.randn(2, 9, 7, 6, dtype=torch.float64)
    assert_close(observed(x), expected(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["LN", "BN"])
@pytest.mark.parametrize("before", ["channels_first", "channels_last"])
@pytest.mark.parametrize("after", ["channels_first", "channels_last"])
def test_build_norm_layer__permutes_around_the_norm(kind, before, after):
    norm, maps = dcn_v3.build_norm_layer(3, kind, before, after), 1e-3 * torch.randn(2, 3, 4, 5)
    out = norm(maps if before == "channels_first" else maps.movedim(1, -1))
    axes = (1,) if kind == "LN" else (0, 2, 3)
    centred = maps - maps.mean(axes, keepdim=True)
    variance = maps.var(axes, correction=0, keepdim=True)
    expected = centred / (variance + (1e-6 if kind == "LN" else 1e-5)).sqrt()
    expected = expected if after == "channels_first" else expected.movedim(1, -1)
    assert_close(out, expected)


def test_dcnv3__of_no_map():
    assert DCNv3(8, group=2, center_feature_scale=True)(torch.ones(0, 3, 4, 8)).shape == (
        0,
        3,
        4,
        8,
    )
