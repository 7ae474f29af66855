"""Multi-scale deformable attention, against a loop over points."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from detrex.layers import MultiScaleDeformableAttention, multi_scale_deformable_attn_pytorch
from detrex.layers.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from tests.reference.loops import deformable_attention

SHAPES = [(5, 7), (3, 2)]


def _inputs(dtype=torch.float64, queries=3, heads=2, width=3, points=2):
    tokens = sum(height * width for height, width in SHAPES)
    value = torch.randn(2, tokens, heads, width, dtype=dtype)
    # Some places are outside of the map.
    locations = torch.rand(2, queries, heads, len(SHAPES), points, 2, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(2, queries, heads, len(SHAPES), points, dtype=dtype)
    return value, locations, weights


def _attend(value, locations, weights, shapes=SHAPES):
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def test_attn_pytorch__equals_loop():
    value, locations, weights = _inputs()
    expected = deformable_attention(value, SHAPES, locations, weights)
    torch.testing.assert_close(_attend(value, locations, weights), expected)
    needing_grad = value.clone().requires_grad_()
    torch.testing.assert_close(_attend(needing_grad, locations, weights), expected)


def test_attn_pytorch__gradients_equal_numeric_ones():
    inputs = [tensor.requires_grad_() for tensor in _inputs(queries=2, heads=1, width=2)]
    assert torch.autograd.gradcheck(_attend, inputs)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_attn_pytorch__gradient_of_one_input_only(wanted):
    inputs = list(_inputs())
    inputs[wanted].requires_grad_()
    _attend(*inputs).sum().backward()
    assert inputs[wanted].grad.abs().sum() > 0


def test_attn_pytorch__tensor_and_list_of_shapes_agree():
    inputs = _inputs()
    torch.testing.assert_close(_attend(*inputs, torch.tensor(SHAPES)), _attend(*inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attn_pytorch__half_precision_samples_in_float32(dtype):
    value, locations, weights = _inputs(torch.float32)
    value = value.to(dtype).requires_grad_()
    out = _attend(value, locations, weights)
    expected = _attend(value.detach().float(), locations, weights)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
    out.float().sum().backward()
    assert value.grad.dtype == dtype


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_attn_pytorch__traced_graph_shows_the_operations():
    inputs = [tensor.requires_grad_() for tensor in _inputs()]
    traced = torch.jit.trace(_attend, inputs, check_trace=False)
    torch.testing.assert_close(traced(*inputs), _attend(*inputs))
    assert "grid_sampler" in str(traced.graph)


def test_attn_pytorch__no_query():
    value, locations, weights = _inputs()
    assert _attend(value, locations[:, :0], weights[:, :0]).shape == (2, 0, 6)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_attn_pytorch__runs_on_meta(requires_grad):
    inputs = [tensor.to("meta").requires_grad_(requires_grad) for tensor in _inputs()]
    out = _attend(*inputs)
    assert out.shape == (2, 3, 6)
    if requires_grad:
        out.sum().backward()
        assert [tensor.grad.shape for tensor in inputs] == [tensor.shape for tensor in inputs]


def test_attn_pytorch__meta_shapes_are_refused():
    inputs = [tensor.to("meta") for tensor in _inputs()]
    with pytest.raises(ValueError, match=r"spatial_shapes is a meta tensor.*give a list"):
        _attend(*inputs, torch.tensor(SHAPES, device="meta"))


def test_attn_pytorch__shapes_that_do_not_fit_are_refused():
    inputs = _inputs()
    with pytest.raises(ValueError, match=r"value has 41 tokens, .* have 44 in total"):
        _attend(*inputs, [(5, 7), (3, 3)])
    with pytest.raises(ValueError, match="locations are for 2 levels, spatial_shapes has 1"):
        _attend(*inputs, [(41, 1)])


def _apply(value, locations, weights, starts=(0, 35)):
    shapes, starts = torch.tensor(SHAPES), torch.tensor(starts)
    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


def test_attn_function__levels_are_where_they_begin():
    """In order, and in another order with a gap between them."""
    value, locations, weights = _inputs()
    expected = deformable_attention(value, SHAPES, locations, weights)
    torch.testing.assert_close(_apply(value, locations, weights), expected)
    gap = torch.full_like(value[:, :4], 9.0)
    moved = torch.cat([gap, value[:, 35:], gap, value[:, :35]], dim=1)
    torch.testing.assert_close(_apply(moved, locations, weights, (14, 4)), expected)


def test_attn_function__gradients_equal_numeric_ones():
    inputs = [tensor.requires_grad_() for tensor in _inputs(queries=2, heads=1, width=2)]
    assert torch.autograd.gradcheck(_apply, inputs)


@pytest.mark.parametrize("starts", [[0], [-1, 34], [0, 36]])
def test_attn_function__levels_outside_are_refused(starts):
    with pytest.raises(ValueError, match=r"level_start_index is \["):
        _apply(*_inputs(), starts)


def _module(**kwargs):
    module = MultiScaleDeformableAttention(
        embed_dim=12, num_heads=2, num_levels=2, num_points=3, dropout=0.0, **kwargs
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def _call(module, reference, shapes=SHAPES, **kwargs):
    query, value = torch.randn(2, 5, 12), torch.randn(2, 41, 12)
    if not module.batch_first:
        query, value = query.transpose(0, 1), value.transpose(0, 1)
    out = module(query, value=value, reference_points=reference, spatial_shapes=shapes, **kwargs)
    return query, value, out


@pytest.mark.parametrize("coordinates", [2, 4])
def test_module__equals_loop(coordinates):
    module = _module(batch_first=True)
    reference = torch.rand(2, 5, 2, coordinates)
    mask = torch.rand(2, 41) > 0.7
    query_pos = torch.randn(2, 5, 12)
    query, value, out = _call(module, reference, query_pos=query_pos, key_padding_mask=mask)

    posed = query + query_pos
    offsets = module.sampling_offsets(posed).view(2, 5, 2, 2, 3, 2)
    weights = module.attention_weights(posed).view(2, 5, 2, 6).softmax(-1).view(2, 5, 2, 2, 3)
    center = reference[:, :, None, :, None, :2]
    if coordinates == 2:
        size = torch.tensor([[7.0, 5.0], [2.0, 3.0]])
        locations = center + offsets / size[None, None, None, :, None]
    else:
        locations = center + offsets / 3 * reference[:, :, None, :, None, 2:] * 0.5
    projected = module.value_proj(value).masked_fill(mask[..., None], 0).view(2, 41, 2, 6)
    attended = deformable_attention(projected, SHAPES, locations, weights)
    expected = query + module.output_proj(attended)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_module__sequence_first_and_tensor_shapes():
    module = _module()
    reference = torch.rand(2, 5, 2, 2)
    query, value, out = _call(module, reference, torch.tensor(SHAPES))
    module.batch_first = True
    query, value = query.transpose(0, 1), value.transpose(0, 1)
    swapped = module(query, value=value, reference_points=reference, spatial_shapes=SHAPES)
    torch.testing.assert_close(out.transpose(0, 1), swapped)


def test_module__identity_is_added():
    module = _module(batch_first=True)
    query, value = torch.randn(2, 5, 12), torch.randn(2, 41, 12)
    where = {"reference_points": torch.rand(2, 5, 2, 2), "spatial_shapes": SHAPES}
    identity = torch.randn(2, 5, 12)
    difference = module(query, value=value, identity=identity, **where) - module(
        query, value=value, **where
    )
    torch.testing.assert_close(difference, identity - query, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_module__autocast_is_near_full_precision(dtype):
    module = _module(batch_first=True)
    reference = torch.rand(2, 5, 2, 2)
    query, value, expected = _call(module, reference)
    with torch.autocast("cpu", dtype):
        out = module(query, value=value, reference_points=reference, spatial_shapes=SHAPES)
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.15)
    out.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_module__bfloat16_parameters():
    module = _module(batch_first=True).bfloat16()
    query, value = torch.randn(2, 5, 12).bfloat16(), torch.randn(2, 41, 12).bfloat16()
    reference = torch.rand(2, 5, 2, 4)
    out = module(query, value=value, reference_points=reference, spatial_shapes=SHAPES)
    assert out.dtype == torch.bfloat16


def test_module__runs_on_meta():
    module = _module(batch_first=True).to("meta")
    where = {"reference_points": torch.rand(2, 5, 2, 2).to("meta"), "spatial_shapes": SHAPES}
    out = module(torch.randn(2, 5, 12).to("meta"), value=torch.randn(2, 41, 12).to("meta"), **where)
    assert out.shape == (2, 5, 12)


def test_module__keys_and_initial_directions():
    module = MultiScaleDeformableAttention(embed_dim=16, num_heads=8, num_levels=2, num_points=3)
    names = ["attention_weights", "output_proj", "sampling_offsets", "value_proj"]
    assert sorted(module.state_dict()) == [
        f"{name}.{kind}" for name in names for kind in ("bias", "weight")
    ]
    offsets = module.sampling_offsets.bias.view(8, 2, 3, 2)
    for head in range(8):
        x, y = math.cos(head * math.pi / 4), math.sin(head * math.pi / 4)
        unit = torch.tensor([x, y]) / max(abs(x), abs(y))
        for point in range(3):
            torch.testing.assert_close(
                offsets[head, 1, point], unit * (point + 1), rtol=1e-5, atol=1e-5
            )
    assert not module.sampling_offsets.weight.any()
    assert not module.attention_weights.weight.any()


def test_module__bad_arguments_are_refused():
    with pytest.raises(ValueError, match="embed_dim must be divisible by num_heads, got 12 and 5"):
        MultiScaleDeformableAttention(embed_dim=12, num_heads=5)
    module = _module(batch_first=True)
    with pytest.raises(ValueError, match=r"needs reference_points .* got no reference_points"):
        _call(module, None)
    with pytest.raises(ValueError, match="got no spatial_shapes"):
        _call(module, torch.rand(2, 5, 2, 2), None)
    with pytest.raises(ValueError, match=r"must end in 2 .* or 4 .* got shape \(2, 5, 2, 3\)"):
        _call(module, torch.rand(2, 5, 2, 3))


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 6, 12), (2, 5, 3, 1, 2, 2), (2, 5, 3, 1, 2)),
        ((2, 6, 3, 4), (2, 5, 3, 2, 2), (2, 5, 3, 2)),
        ((2, 6, 3, 4), (2, 5, 3, 1, 2, 2), (2, 5, 1, 1, 2)),
        ((2, 6, 3, 4), (2, 5, 1, 1, 2, 2), (2, 5, 1, 1, 2)),
        ((1, 6, 3, 4), (2, 5, 3, 1, 2, 2), (2, 5, 3, 1, 2)),
    ],
)
def test_attn_pytorch__tensors_of_other_shapes_are_refused(shapes):
    value, locations, weights = map(torch.rand, shapes)
    with pytest.raises(ValueError, match=r"must be \(N, S, H, D\), .* got \[\d, 6, "):
        multi_scale_deformable_attn_pytorch(value, [(2, 3)], locations, weights)
    with pytest.raises(ValueError, match=r"must be \(L, 2\), .* the shape \[2\]"):
        MultiScaleDeformableAttnFunction.apply(
            value, torch.tensor([2, 3]), torch.tensor([0]), locations, weights, 64
        )


def test_module__sizes_kept_from_inference_or_fake_tensors_serve_training():
    module = _module(batch_first=True)
    reference = torch.rand(2, 5, 2, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _call(module, torch.rand(2, 5, 2, 2))
    with torch.inference_mode():
        _call(module, reference)
    _, _, out = _call(module, reference)
    out.sum().backward()
    assert module.sampling_offsets.weight.grad.isfinite().all()


def test_module__compiles_as_one_graph():
    module, reference = _module(batch_first=True), torch.rand(2, 5, 2, 2)
    query, value, expected = _call(module, reference)
    torch.compiler.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    out = compiled(query, value=value, reference_points=reference, spatial_shapes=SHAPES)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    parameters = list(module.parameters())
    both = [torch.autograd.grad(output, parameters, seed) for output in (out, expected)]
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.compiler.reset()
