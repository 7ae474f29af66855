"""The operators around the Triton programs: when they can run, their shapes, their graph."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from detrex.layers.deform_sampling import triton_kernel

SIZES = [(5, 4), (1, 3)]


def _inputs(dtype=torch.float32, queries=7, device="cpu"):
    value = torch.rand(2, 23, 3, 5, device=device).to(dtype)
    shape = (2, queries, 3, 2, 2)
    return value, torch.rand(*shape, 2, device=device), torch.rand(shape, device=device)


@pytest.fixture
def card(monkeypatch):
    """A card of capability 9.0 as far as one can ask for it, and Triton."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(triton_kernel, "find_spec", lambda name: name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return monkeypatch


def test_why_not__runs_on_a_card(card):
    assert triton_kernel.why_not("cuda", torch.bfloat16) == ""


def test_why_not__tells_what_is_missing(card):
    assert triton_kernel.why_not("cpu", torch.float32) == "it needs a CUDA device"
    assert "float8" in triton_kernel.why_not("cuda", torch.float8_e5m2)
    card.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    assert "capability 7.0" in triton_kernel.why_not("cuda", torch.float32)
    card.setattr(triton_kernel, "find_spec", lambda name: None)
    assert triton_kernel.why_not("cuda", torch.float32) == "Triton is not installed"


def test_attend__on_a_card_that_is_not_there():
    with FakeTensorMode():
        value, locations, weights = _inputs(torch.bfloat16, device="cuda")
        output = triton_kernel.attend(value, locations, weights, SIZES)
    assert (output.shape, output.dtype, output.device.type) == ((2, 7, 15), value.dtype, "cuda")


def test_attend__gradients_have_the_inputs_shapes_and_dtypes():
    with FakeTensorMode():
        inputs = [tensor.requires_grad_() for tensor in _inputs(torch.bfloat16)]
        output = triton_kernel.attend(*inputs, SIZES)
        gradients = torch.autograd.grad(output.sum(), inputs)
    for gradient, tensor in zip(gradients, inputs, strict=True):
        assert (gradient.shape, gradient.dtype) == (tensor.shape, tensor.dtype)


def test_attend__is_one_operator_of_an_exported_graph_for_any_number_of_queries():
    class Attend(torch.nn.Module):
        def forward(self, value, locations, weights):
            return triton_kernel.attend(value, locations, weights, SIZES)

    queries = {1: torch.export.Dim("queries")}
    program = torch.export.export(Attend(), _inputs(), dynamic_shapes=(None, queries, queries))
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.detrex.deformable_attention.default]
    assert isinstance(
        next(iter(program.graph.output_node().args[0])).meta["val"].shape[1], torch.SymInt
    )


def test_attend__gradient_is_taken_once():
    with FakeTensorMode():
        inputs = [tensor.requires_grad_() for tensor in _inputs()]
        output = triton_kernel.attend(*inputs, SIZES).sum()
        (gradient,) = torch.autograd.grad(output, inputs[2], create_graph=True)
        with pytest.raises(RuntimeError, match="can be taken once"):
            torch.autograd.grad(gradient.sum(), inputs)


def test_attend__gradient_in_no_fixed_order_is_told_of():
    inputs = [tensor.requires_grad_() for tensor in _inputs(queries=0)]
    output = triton_kernel.attend(*inputs, SIZES)
    try:
        torch.use_deterministic_algorithms(True)
        with pytest.raises(RuntimeError, match="no fixed order"):
            torch.autograd.grad(output.sum(), inputs, retain_graph=True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="no fixed order"):
            torch.autograd.grad(output.sum(), inputs)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_attend__compiled_on_a_card_for_any_number_of_queries():
    attend = torch.compile(triton_kernel.attend, fullgraph=True, dynamic=True)
    for queries in (7, 9, 12):
        inputs = [tensor.cuda().requires_grad_() for tensor in _inputs(queries=queries)]
        expected = triton_kernel.attend(*inputs, SIZES)
        output = attend(*inputs, SIZES)
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
        grad = torch.rand_like(output)
        wanted = torch.autograd.grad(expected, inputs, grad)
        for got, want in zip(torch.autograd.grad(output, inputs, grad), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_attend__in_a_captured_graph():
    inputs = [tensor.cuda() for tensor in _inputs()]
    triton_kernel.attend(*inputs, SIZES)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = triton_kernel.attend(*inputs, SIZES)
    inputs[0].mul_(2)
    graph.replay()
    expected = triton_kernel.attend(*inputs, SIZES)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_attend__compiles_nothing_for_another_picture_size(monkeypatch):
    knobs = pytest.importorskip("triton.knobs", reason="from Triton 3.4 on")
    compiled = []
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda **what: compiled.append(what))
    for sizes in ([(5, 4), (1, 3)], [(16, 1), (2, 48)], [(64, 64), (1, 1)]):
        tokens = sum(height * width for height, width in sizes)
        _, locations, weights = (tensor.cuda() for tensor in _inputs(queries=tokens))
        # Two heads, which no other test compiles for.
        value = torch.rand(2, tokens, 2, 5, device="cuda")
        triton_kernel.attend(value, locations[:, :, :2], weights[:, :, :2], sizes)
    assert len(compiled) == 1
