"""Kernels of other packages, which stand-ins replace: how each is called, and what it gives."""

import sys
from types import SimpleNamespace

import pytest
import torch

from detrex.layers.deform_sampling import grid_sample
from detrex.layers.deform_sampling.installed import INSTALLED, InstalledKernel

SIZES = [(4, 7), (2, 3)]


def _forward(value, sizes, starts, locations, weights, step):
    assert starts.tolist() == [0, 28]
    assert step == len(value)
    assert value.dtype == locations.dtype == weights.dtype
    return grid_sample.attend(value, locations, weights, [tuple(size) for size in sizes.tolist()])


def _backward(value, sizes, starts, locations, weights, grad, step):
    inputs = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
    with torch.enable_grad():
        output = _forward(inputs[0], sizes, starts, *inputs[1:], step)
    return torch.autograd.grad(output, inputs, grad)


def _fill(*arguments):
    *given, grad_value, grad_locations, grad_weights, step = arguments
    grads = _backward(*given, step)
    for target, grad in zip((grad_value, grad_locations, grad_weights), grads, strict=True):
        target.copy_(grad)


@pytest.fixture(params=list(INSTALLED))
def kernel(request, monkeypatch):
    extension = SimpleNamespace(ms_deform_attn_forward=_forward, ms_deform_attn_backward=_backward)
    filling = SimpleNamespace(ms_deform_attn_forward=_forward, ms_deform_attn_backward=_fill)
    hub = {"kernels-community/deformable-detr": extension}
    monkeypatch.setitem(sys.modules, "detrex._C", extension)
    monkeypatch.setitem(sys.modules, "mmcv", SimpleNamespace(_ext=filling))
    monkeypatch.setitem(sys.modules, "mmcv._ext", filling)
    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=hub.__getitem__))
    kernel = INSTALLED[request.param]
    yield kernel
    kernel.__dict__.pop("_passes", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attend__equals_grid_sample(kernel, dtype):
    value = torch.randn(2, 34, 2, 3).to(dtype).requires_grad_()
    locations = torch.rand(2, 5, 2, 2, 3, 2, requires_grad=True)
    weights = torch.rand(2, 5, 2, 2, 3, requires_grad=True)
    inputs = (value, locations, weights)
    outputs = [one.attend(*inputs, SIZES) for one in (kernel, grid_sample)]
    assert outputs[0].dtype == dtype
    torch.testing.assert_close(*outputs)
    seed = torch.randn_like(outputs[0])
    both = (torch.autograd.grad(output, inputs, seed) for output in outputs)
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_why_not__is_empty_where_it_loads(kernel):
    assert kernel.why_not("cuda", torch.float32) == ""
    assert kernel.why_not("cpu", torch.float32) == "it needs a CUDA device"


def test_why_not__tells_why_it_cannot_be_loaded():
    def load():
        raise OSError("no network\nand more")

    kernel = InstalledKernel("nowhere", load)
    reason = kernel.why_not("cuda", torch.float32)
    assert reason == "it cannot be loaded (no network)"


@pytest.mark.parametrize("name", list(INSTALLED))
def test_why_not__absent_package(name, monkeypatch):
    for module in ("detrex._C", "mmcv", "mmcv._ext", "kernels"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "it cannot be loaded (" in INSTALLED[name].why_not("cuda", torch.float32)
