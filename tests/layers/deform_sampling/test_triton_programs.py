"""The Triton programs against `grid_sample` in float64: interpreted on the CPU, and on a card."""

import os
import subprocess
import sys

import pytest
import torch

from detrex.layers.deform_sampling import grid_sample, triton_kernel

SIZES = [(3, 5), (1, 1), (2, 2)]
# dtype of the values, that of places and weights, heads, channels, points, queries
CASES = {
    "float32": (torch.float32, torch.float32, 2, 4, 2, 3),
    "float64": (torch.float64, torch.float64, 1, 1, 1, 2),
    "float16": (torch.float16, torch.float32, 1, 8, 1, 3),
    "bfloat16": (torch.bfloat16, torch.float32, 2, 6, 1, 2),
    "all_bfloat16": (torch.bfloat16, torch.bfloat16, 1, 3, 1, 2),
    "more_queries_than_a_block": (torch.float32, torch.float32, 1, 200, 1, 3),
    "no_query": (torch.float32, torch.float32, 2, 4, 2, 0),
    "no_point": (torch.float32, torch.float32, 2, 4, 0, 2),
    "nine_levels": (torch.float32, torch.float32, 1, 2, 1, 1),
    "strided": (torch.float32, torch.float32, 2, 3, 1, 2),
    "far_away": (torch.float32, torch.float32, 1, 4, 1, 5),
}
# Bounds of the error relative to the largest number of each result.
BOUND = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def _inputs(case):
    """Make values, places, weights, the sums' gradient, and sizes.

    Places are from two pixels outside to two pixels outside, a tenth of a pixel away from where the
    gradient jumps.
    """
    dtype, place_dtype, heads, channels, points, queries = CASES[case]
    generator = torch.Generator().manual_seed(list(CASES).index(case))
    sizes = SIZES * 3 if case == "nine_levels" else SIZES
    size_L2 = torch.tensor(sizes, dtype=torch.float64)[:, None].flip(-1)
    shape = (2, queries, heads, len(sizes), points)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    pixels = (uniform(*shape, 2) * (size_L2 + 4)).floor() - 2 + 0.1 + 0.8 * uniform(*shape, 2)
    locations = (pixels + 0.5) / size_L2
    if case == "far_away":
        far = [[1e30, 0.5], [0.5, -1e9], [torch.inf, 0.45], [0.45, -torch.inf], [torch.nan, 0.45]]
        locations[0, :, 0, 0, 0] = torch.tensor(far)
    tokens = sum(height * width for height, width in sizes)
    value, grad = normal(2, tokens, heads, channels), normal(2, queries, heads * channels)
    tensors = [value.to(dtype), locations.to(place_dtype), normal(*shape).to(place_dtype)]
    tensors.append(grad.to(dtype))
    if case == "strided":
        tensors = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in tensors]
    return *tensors, sizes


def _run(attend, value, locations, weights, grad, sizes):
    inputs = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
    output = attend(*inputs, sizes)
    return output.detach(), *torch.autograd.grad(output, inputs, grad)


def _check(case, results):
    *tensors, sizes = _inputs(case)
    expected = _run(grid_sample.attend, *(tensor.double() for tensor in tensors), sizes)
    value, locations, weights, _ = tensors
    names = ("sums", "values", "places", "weights")
    wanted = (value, value, locations, weights)
    for name, result, want, like in zip(names, results, expected, wanted, strict=True):
        assert (result.dtype, result.shape) == (like.dtype, want.shape), (case, name)
        largest = want[want.isfinite()].abs().amax().item() if want.numel() else 0.0
        torch.testing.assert_close(
            result.cpu().double(),
            want,
            rtol=0,
            atol=BOUND[like.dtype] * largest,
            equal_nan=True,
            msg=lambda text, name=name: f"{case}, {name}: {text}",
        )


INTERPRET = """
import sys, torch
from detrex.layers.deform_sampling import kernels, triton_kernel
assert f"{triton_kernel.__package__}.triton_programs" not in sys.modules  # they import Triton
cases, results = torch.load(sys.argv[1]), {}
for case, (value, locations, weights, grad, sizes) in cases.items():
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    assert triton_kernel.why_not("cpu", value.dtype) == ""
    output = triton_kernel.attend(*inputs, sizes)
    results[case] = (output.detach(), *torch.autograd.grad(output, inputs, grad))
    if case == "all_bfloat16":
        operator, flat = torch.ops.detrex.deformable_attention, [n for size in sizes for n in size]
        torch.library.opcheck(operator, (*inputs, flat))
compiled = torch.compile(triton_kernel.attend, backend="aot_eager", fullgraph=True, dynamic=True)
output = compiled(*inputs, sizes)
gradients = torch.autograd.grad(output, inputs, grad)
for want, result in zip(results[case], (output, *gradients), strict=True):
    torch.testing.assert_close(result, want, equal_nan=True)
torch.save(results, sys.argv[2])
"""


def test_programs__interpreted_equal_grid_sample(tmp_path):
    """All cases in one process of its own: Triton reads the variable when it is imported."""
    pytest.importorskip("triton", reason="Triton is not installed")
    torch.save({case: _inputs(case) for case in CASES}, tmp_path / "cases.pt")
    subprocess.run(
        [sys.executable, "-c", INTERPRET, tmp_path / "cases.pt", tmp_path / "results.pt"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=True,
    )
    for case, results in torch.load(tmp_path / "results.pt").items():
        _check(case, results)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_programs__on_a_card_equal_grid_sample(case):
    *tensors, sizes = _inputs(case)
    _check(case, _run(triton_kernel.attend, *(tensor.cuda() for tensor in tensors), sizes))


@pytest.mark.gpu
def test_programs__beyond_two_to_the_31_numbers():
    """A place next to the last pixel of the second map; a single map has more numbers than that."""
    if torch.cuda.get_device_properties(0).total_memory < 40e9:
        pytest.skip("the maps and their gradients take 34 GB")
    side, channels = 8200, 32
    value = torch.zeros(2, side * side, 1, channels, dtype=torch.bfloat16, device="cuda")
    pixels = torch.arange(4.0 * channels, device="cuda").view(2, 2, channels)
    value.view(2, side, side, channels)[1, -2:, -2:] = pixels.bfloat16()
    # Between the last two pixels: a quarter on the way to the right, three quarters downwards.
    place = [(side - 1.25) / side, (side - 0.75) / side]
    shares = torch.tensor([[0.75, 0.25], [3 * 0.75, 3 * 0.25]], device="cuda") / 4
    locations = torch.tensor(place, device="cuda").expand(2, 1, 1, 1, 1, 2)
    weights, grad = locations.new_ones(2, 1, 1, 1, 1), value.new_ones(2, 1, channels)
    sums, grad_value, *_ = _run(
        triton_kernel.attend, value, locations, weights, grad, [(side, side)]
    )
    expected = (pixels * shares[..., None]).sum((0, 1))
    torch.testing.assert_close(sums[1, 0].float(), expected, rtol=0.02, atol=0.0)
    last = grad_value.view(2, side, side, channels)[:, -2:, -2:].float()
    torch.testing.assert_close(
        last, shares[:, :, None].expand(2, 2, 2, channels), rtol=0.02, atol=0.0
    )
    assert grad_value.count_nonzero() == last.numel()
