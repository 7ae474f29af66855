"""Sampling by weighted sums of rows, against a loop over points and against `grid_sample`."""

import pytest
import torch

from detrex.layers.deform_sampling import grid_sample, rows
from tests.reference.loops import deformable_attention

SIZES = [(5, 7), (1, 1), (3, 2), (1, 4)]


def _inputs(dtype=torch.float64, queries=5, heads=2, width=3, points=3, images=2, sizes=SIZES):
    """Values, places of which some are outside of their level, weights of either sign."""
    tokens = sum(height * width for height, width in sizes)
    value = torch.randn(images, tokens, heads, width, dtype=dtype)
    shape = (images, queries, heads, len(sizes), points)
    locations = torch.rand(*shape, 2, dtype=dtype) * 2 - 0.5
    return value, locations, torch.randn(shape, dtype=dtype)


def _with_gradients(kernel, inputs, sizes=SIZES):
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output = kernel.attend(*inputs, sizes)
    seed = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad(output, inputs, seed)]


def _assert_close(actual, expected, tolerance):
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_attend__equals_loop():
    inputs = _inputs()
    assert rows.why_not("cpu", torch.float64) == ""
    expected = deformable_attention(inputs[0], SIZES, *inputs[1:])
    _assert_close([rows.attend(*inputs, SIZES)], [expected], 1e-10)


def test_attend__gradients_equal_numeric_ones():
    inputs = [tensor.requires_grad_() for tensor in _inputs(queries=2, heads=1, width=2, points=1)]
    assert torch.autograd.gradcheck(lambda *tensors: rows.attend(*tensors, SIZES), inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("queries", [1, 23])
def test_attend__equals_grid_sample(dtype, tolerance, queries, monkeypatch):
    """Divided into blocks that do not come out even, too."""
    monkeypatch.setattr(rows, "QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(rows, "NUMBERS_AT_ONCE", 2000)
    inputs = _inputs(dtype, queries)
    expected = _with_gradients(grid_sample, inputs)
    _assert_close(_with_gradients(rows, inputs), expected, tolerance)
    monkeypatch.setattr(rows, "MOST_INT32_ROWS", 0)
    _assert_close(_with_gradients(rows, inputs), expected, tolerance)


@pytest.mark.parametrize("share", [0.0, 1.0, -1e-7, 1 + 1e-7, 3.0, -3.0, 1e9, -1e9, 1e30, -1e30])
def test_attend__places_at_the_edge_and_far_outside(share):
    value, locations, weights = _inputs(torch.float32)
    locations[:, ::2, ..., 0] = share
    locations[:, 1::3, ..., 1] = share
    expected = grid_sample.attend(value, locations, weights, SIZES)
    _assert_close([rows.attend(value, locations, weights, SIZES)], [expected], 2e-5)


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -float("inf")])
def test_attend__places_that_are_no_numbers_spoil_their_own_sums_alone(share):
    inputs = _inputs(torch.float32)
    inputs[1][0, 1, 0, 2, 1, 0] = inputs[1][1, 3, 1, 0, 0, 1] = share
    ours, theirs = _with_gradients(rows, inputs)[0], _with_gradients(grid_sample, inputs)[0]
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5, equal_nan=True)
    assert ours.isnan().sum() == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attend__half_precision_is_summed_in_float32(dtype):
    """Equal to the sum in float32 but for the rounding of the result."""
    value, locations, weights = _inputs(torch.float32)
    inputs = (value.to(dtype), locations, weights)
    actual = _with_gradients(rows, inputs)
    expected = _with_gradients(rows, (value.to(dtype).float(), locations, weights))
    assert [tensor.dtype for tensor in actual] == [dtype, dtype, torch.float32, torch.float32]
    _assert_close(actual[:2], [tensor.to(dtype) for tensor in expected[:2]], 1e-2)
    _assert_close(actual[2:], expected[2:], 5e-2)


@pytest.mark.parametrize("empty", [{"images": 0}, {"queries": 0}, {"sizes": [(0, 3), (2, 0)]}])
def test_attend__nothing_to_sample(empty):
    sizes = empty.get("sizes", SIZES)
    inputs = _inputs(**empty)
    output, *grads = _with_gradients(rows, inputs, sizes)
    assert output.shape == (*inputs[1].shape[:2], 6)
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in inputs]
    assert not any(tensor.any() for tensor in (output, *grads))


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_attend__gradient_of_one_input_only(wanted):
    inputs = list(_inputs())
    expected = _with_gradients(grid_sample, inputs)[1 + wanted]
    inputs[wanted].requires_grad_()
    output = rows.attend(*inputs, SIZES)
    seed = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    output.backward(seed)
    _assert_close([inputs[wanted].grad], [expected], 1e-10)


def test_attend__under_autocast_gradients_keep_their_precision():
    inputs = _inputs(torch.float32)
    expected = _with_gradients(rows, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        _assert_close(_with_gradients(rows, inputs), expected, 1e-6)


def test_attend__exports():
    class Module(torch.nn.Module):
        def forward(self, value, locations, weights):
            return rows.attend(value, locations, weights, SIZES)

    inputs = _inputs(torch.float32)
    program = torch.export.export(Module(), inputs)
    fresh = _inputs(torch.float32)
    _assert_close([program.module()(*fresh)], [rows.attend(*fresh, SIZES)], 1e-6)
