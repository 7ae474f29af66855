"""Attention layers, against torch's own and against sums by einsum."""

import pytest
import torch
from torch import nn

from detrex.layers import (
    ConditionalCrossAttention,
    ConditionalSelfAttention,
    MultiheadAttention,
)

HEADS, WIDTH = 2, 6


def _tokens(*lengths):
    return [torch.randn(2, length, WIDTH) for length in lengths]


def _softmax_attention(query, key, value, mask=None):
    """Multi-head attention of (N, T, C) tokens that are projected already; mask True = hidden."""
    query, key, value = (t.unflatten(-1, (HEADS, -1)) for t in (query, key, value))
    logits = torch.einsum("nqhc,nkhc->nhqk", query, key) / query.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(mask, float("-inf"))
    return torch.einsum("nhqk,nkhc->nqhc", logits.softmax(-1), value).flatten(2)


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead__equals_torch_plus_residual(batch_first):
    layer = MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
    query, query_pos, key, key_pos = _tokens(3, 3, 5, 5)
    mask, padding = torch.rand(3, 5) > 0.7, torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    mask[:, 0] = False
    tokens = [query, key, query_pos, key_pos]
    if not batch_first:
        tokens = [token.transpose(0, 1) for token in tokens]
    query, key, query_pos, key_pos = tokens
    masks = {"attn_mask": mask, "key_padding_mask": padding}
    out = layer(query, key, query_pos=query_pos, key_pos=key_pos, **masks)
    expected, _ = layer.attn(query + query_pos, key + key_pos, key, **masks)
    torch.testing.assert_close(out, query + expected, rtol=1e-5, atol=1e-5)


def test_multihead__defaults_are_self_attention():
    layer = MultiheadAttention(WIDTH, HEADS, batch_first=True)
    query, query_pos, identity = _tokens(3, 3, 3)
    expected, _ = layer.attn(query + query_pos, query + query_pos, query)
    torch.testing.assert_close(layer(query, query_pos=query_pos), query + expected)
    torch.testing.assert_close(
        layer(query, identity=identity, query_pos=query_pos), identity + expected
    )


def test_multihead__keys():
    assert sorted(MultiheadAttention(WIDTH, HEADS).state_dict()) == [
        "attn.in_proj_bias",
        "attn.in_proj_weight",
        "attn.out_proj.bias",
        "attn.out_proj.weight",
    ]


@pytest.mark.parametrize("batch_first", [True, False])
def test_conditional_self__equals_einsum(batch_first):
    layer = ConditionalSelfAttention(WIDTH, HEADS, batch_first=batch_first)
    query, pos = _tokens(5, 5)
    mask = torch.rand(5, 5) > 0.6
    mask.fill_diagonal_(False)
    attended = _softmax_attention(
        layer.query_content_proj(query) + layer.query_pos_proj(pos),
        layer.key_content_proj(query) + layer.key_pos_proj(pos),
        layer.value_proj(query),
        mask,
    )
    expected = query + layer.out_proj(attended)
    if batch_first:
        out = layer(query, query_pos=pos, attn_mask=mask)
    else:
        out = layer(query.transpose(0, 1), query_pos=pos.transpose(0, 1), attn_mask=mask)
        out = out.transpose(0, 1)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_first_layer", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_conditional_cross__equals_einsum(is_first_layer, batch_first):
    layer = ConditionalCrossAttention(WIDTH, HEADS, batch_first=batch_first)
    query, query_pos, sine, key, key_pos = _tokens(3, 3, 3, 5, 5)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True

    key_position = layer.key_pos_proj(key_pos)
    content, key_content = layer.query_content_proj(query), layer.key_content_proj(key)
    if is_first_layer:
        content = content + layer.query_pos_proj(query_pos)
        key_content = key_content + key_position

    def by_head(one, other):
        one, other = (t.unflatten(-1, (HEADS, -1)) for t in (one, other))
        return torch.cat([one, other], -1).flatten(2)

    attended = _softmax_attention(
        by_head(content, layer.query_pos_sine_proj(sine)),
        by_head(key_content, key_position),
        layer.value_proj(key),
        padding[:, None, None],
    )
    expected = query + layer.out_proj(attended)
    tokens = [query, key, query_pos, key_pos, sine]
    if not batch_first:
        tokens = [token.transpose(0, 1) for token in tokens]
    out = layer(
        *tokens[:2],
        query_pos=tokens[2],
        key_pos=tokens[3],
        query_sine_embed=tokens[4],
        is_first_layer=is_first_layer,
        key_padding_mask=padding,
    )
    out = out if batch_first else out.transpose(0, 1)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_conditional_self__masks_add_up():
    layer = ConditionalSelfAttention(WIDTH, HEADS, batch_first=True)
    (query,) = _tokens(5)
    mask, padding = torch.zeros(5, 5, dtype=torch.bool), torch.zeros(2, 5, dtype=torch.bool)
    mask[:, 1], padding[:, 3] = True, True
    both = layer(query, attn_mask=mask, key_padding_mask=padding)
    per_head = mask.logical_or(padding[0]).expand(2 * HEADS, -1, -1)
    torch.testing.assert_close(both, layer(query, attn_mask=per_head))
    added = torch.zeros(5, 5).masked_fill(mask | padding[0], float("-inf"))
    torch.testing.assert_close(both, layer(query, attn_mask=added))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [ConditionalSelfAttention, MultiheadAttention])
def test_attention__dropout_only_in_training(kind, batch_first):
    layer = kind(WIDTH, HEADS, attn_drop=0.5, proj_drop=0.5, batch_first=batch_first)
    (query,) = _tokens(5)
    assert not torch.equal(layer(query), layer(query))
    layer.eval()
    torch.testing.assert_close(layer(query), layer(query))


def test_conditional_cross__missing_positions_are_refused():
    layer = ConditionalCrossAttention(WIDTH, HEADS, batch_first=True)
    query, key, key_pos = _tokens(3, 5, 5)
    with pytest.raises(ValueError, match="needs key_pos, got None"):
        layer(query, key, query_sine_embed=query)
    with pytest.raises(ValueError, match="needs query_sine_embed, got None"):
        layer(query, key, key_pos=key_pos)
    with pytest.raises(ValueError, match="needs query_pos in the first layer"):
        layer(query, key, key_pos=key_pos, query_sine_embed=query, is_first_layer=True)


@pytest.mark.parametrize("kind", [ConditionalSelfAttention, ConditionalCrossAttention])
def test_conditional__heads_must_divide_width(kind):
    with pytest.raises(ValueError, match="embed_dim must be divisible by num_heads, got 6 and 4"):
        kind(6, 4)


def test_conditional__keys():
    shared = "key_content_proj key_pos_proj out_proj query_content_proj query_pos_proj value_proj"
    names = {name.split(".")[0] for name in ConditionalSelfAttention(6, 2).state_dict()}
    assert names == set(shared.split())
    names = {name.split(".")[0] for name in ConditionalCrossAttention(6, 2).state_dict()}
    assert names == {*shared.split(), "query_pos_sine_proj"}


def test_attention__parts_are_modules_of_torch():
    assert isinstance(MultiheadAttention(6, 2).attn, nn.MultiheadAttention)
