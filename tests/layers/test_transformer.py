"""Transformer layers put together from parts."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detrex.layers import FFN, BaseTransformerLayer, MultiheadAttention, TransformerLayerSequence

WIDTH = 6
POST_NORM = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")
PRE_NORM = ("norm", "self_attn", "norm", "cross_attn", "norm", "ffn")


def _layer(order, attn=None):
    return BaseTransformerLayer(
        attn=attn or MultiheadAttention(WIDTH, 2, batch_first=True),
        ffn=FFN(WIDTH, 7),
        norm=nn.LayerNorm(WIDTH),
        operation_order=order,
    )


def _tokens(*lengths):
    return [torch.randn(2, length, WIDTH) for length in lengths]


def test_layer__post_norm_runs_in_order():
    layer = _layer(POST_NORM)
    query, pos, key, key_pos = _tokens(3, 3, 5, 5)
    out = layer(query, key, key, query_pos=pos, key_pos=key_pos)
    x = layer.norms[0](layer.attentions[0](query, query_pos=pos))
    x = layer.norms[1](layer.attentions[1](x, key, query_pos=pos, key_pos=key_pos))
    torch.testing.assert_close(out, layer.norms[2](layer.ffns[0](x)))


def test_layer__pre_norm_residuals_bypass_the_norms():
    layer = _layer(PRE_NORM)
    query, pos, key = _tokens(3, 3, 5)
    out = layer(query, key, key, query_pos=pos)
    x = layer.attentions[0](layer.norms[0](query), identity=query, query_pos=pos)
    x = layer.attentions[1](layer.norms[1](x), key, identity=x, query_pos=pos)
    torch.testing.assert_close(out, layer.ffns[0](layer.norms[2](x), x))
    assert (layer.pre_norm, layer.embed_dim, layer.num_attn) == (True, WIDTH, 2)


def test_layer__single_attention_is_copied_and_a_list_is_kept():
    layer = _layer(POST_NORM)
    assert layer.attentions[0] is not layer.attentions[1]
    assert layer.attentions[0].attn.in_proj_weight is not layer.attentions[1].attn.in_proj_weight
    mine = [MultiheadAttention(WIDTH, 2), MultiheadAttention(WIDTH, 3)]
    assert list(_layer(POST_NORM, mine).attentions) == mine


def test_layer__omegaconf_lists():
    attn = OmegaConf.create(
        [MultiheadAttention(WIDTH, 2), MultiheadAttention(WIDTH, 3)], flags={"allow_objects": True}
    )
    layer = _layer(OmegaConf.create(list(POST_NORM)), attn)
    assert [attention.num_heads for attention in layer.attentions] == [2, 3]
    assert layer.operation_order == POST_NORM
    sequence = TransformerLayerSequence(
        OmegaConf.create([_layer(POST_NORM)], flags={"allow_objects": True})
    )
    assert len(sequence.layers) == 1


def test_layer__masks_reach_their_attention():
    layer = _layer(POST_NORM)
    query, key = _tokens(3, 5)
    own, cross = torch.eye(3) == 0, torch.ones(3, 5, dtype=torch.bool)
    cross[:, 2] = False
    padding = torch.tensor([[False, False, False, True, True]] * 2)
    out = layer(query, key, key, attn_masks=[own, None], key_padding_mask=padding)
    x = layer.norms[0](layer.attentions[0](query, attn_mask=own))
    x = layer.norms[1](layer.attentions[1](x, key, key_padding_mask=padding))
    torch.testing.assert_close(out, layer.norms[2](layer.ffns[0](x)))
    only_key_2 = layer(query, key, key, attn_masks=[None, cross])
    torch.testing.assert_close(only_key_2, layer(query, key[:, 2:3], key[:, 2:3]))


def test_layer__one_mask_for_all_warns():
    layer = _layer(("self_attn", "norm", "self_attn", "norm", "ffn", "norm"))
    (query,) = _tokens(3)
    mask = torch.eye(3) == 0
    with pytest.warns(UserWarning, match="One attn_mask is used for all 2 attentions"):
        out = layer(query, attn_masks=mask)
    torch.testing.assert_close(out, layer(query, attn_masks=[mask, mask]))


def test_layer__bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"operation_order must be names out of .* got 'attn'"):
        _layer(("attn", "norm"))
    with pytest.raises(ValueError, match=r"operation_order must be names out of .* got nothing"):
        _layer(None)
    with pytest.raises(ValueError, match="has 2 attentions, attn has 1"):
        _layer(POST_NORM, [MultiheadAttention(WIDTH, 2)])
    (query,) = _tokens(3)
    with pytest.raises(ValueError, match=r"one entry per attention \(2\), got 1"):
        _layer(POST_NORM)(query, query, query, attn_masks=[None])


def test_sequence__list_is_kept():
    layers = [_layer(POST_NORM), _layer(PRE_NORM)]
    sequence = TransformerLayerSequence(layers)
    assert list(sequence.layers) == layers
    assert sequence.num_layers == 2
    assert list(TransformerLayerSequence(nn.ModuleList(layers), 2).layers) == layers


def test_sequence__single_layer_is_copied():
    layer = _layer(POST_NORM)
    sequence = TransformerLayerSequence(transformer_layers=layer, num_layers=3)
    assert sequence.num_layers == len(sequence.layers) == 3
    assert len({parameter.data_ptr() for parameter in sequence.parameters()}) == 3 * len(
        list(layer.parameters())
    )
    assert "layers.2.attentions.1.attn.in_proj_weight" in sequence.state_dict()


def test_sequence__bad_arguments_are_refused():
    with pytest.raises(ValueError, match="needs transformer_layers, got None"):
        TransformerLayerSequence()
    with pytest.raises(ValueError, match="num_layers must be given"):
        TransformerLayerSequence(_layer(POST_NORM))
    with pytest.raises(ValueError, match="num_layers is 3, but transformer_layers has 1"):
        TransformerLayerSequence([_layer(POST_NORM)], 3)


def test_sequence__forward_is_for_subclasses():
    with pytest.raises(NotImplementedError, match="TransformerLayerSequence does not define"):
        TransformerLayerSequence([_layer(POST_NORM)])()
