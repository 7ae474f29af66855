"""Operators from two passes: shapes for fake tensors, one graph for all sizes, one gradient."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from detrex.layers.deform_sampling import rows


def _inputs(sizes, queries=5):
    tokens = sum(height * width for height, width in sizes)
    shape = (2, queries, 3, 2, 5)
    tensors = torch.randn(2, tokens, 3, 8), torch.rand(*shape, 2), torch.randn(shape)
    return [tensor.requires_grad_() for tensor in tensors]


def test_make_operators__pass_the_checks_of_pytorch():
    inputs = _inputs([(4, 7), (2, 6)])
    operator = torch.ops.detrex.deformable_attention_by_rows.default
    torch.library.opcheck(operator, (*inputs, [4, 7, 2, 6]))


def test_make_operators__one_graph_for_all_sizes():
    def attend(first, second, *inputs):
        return rows.attend(*inputs, [first.shape, second.shape])

    torch.compiler.reset()
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attend, backend=backend, fullgraph=True, dynamic=True)
    for sizes, queries in (
        ([(4, 7), (6, 9)], 11),
        ([(9, 4), (7, 10)], 12),
        ([(13, 14), (9, 4)], 10),
    ):
        maps, inputs = [torch.empty(size) for size in sizes], _inputs(sizes, queries)
        actual, expected = compiled(*maps, *inputs), attend(*maps, *inputs)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
        seed = torch.randn_like(expected)
        both = (torch.autograd.grad(output, inputs, seed) for output in (actual, expected))
        for ours, theirs in zip(*both, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert backend.frame_count == 1
    torch.compiler.reset()


def test_make_operators__fake_tensors_get_shapes():
    with FakeTensorMode():
        inputs = _inputs([(4, 7), (2, 6)])
        output = rows.attend(*inputs, [(4, 7), (2, 6)])
        grads = torch.autograd.grad(output.sum(), inputs)
    assert output.shape == (2, 5, 24)
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in inputs]


def test_make_operators__second_gradient_is_refused():
    inputs = _inputs([(4, 7), (2, 6)])
    output = rows.attend(*inputs, [(4, 7), (2, 6)])
    grad = torch.autograd.grad(output.sum(), inputs, create_graph=True)[1]
    with pytest.raises(RuntimeError, match="can be taken once; this is the second time"):
        grad.sum().backward()
