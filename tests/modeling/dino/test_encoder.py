import pytest
import torch

from detrex.modeling.dino import DINOTransformerEncoder

SHAPES = [(5, 3), (2, 1)]
TOKENS = 17


def _encoder(**kwargs):
    options = {"embed_dim": 12, "num_heads": 3, "feedforward_dim": 7, "num_layers": 2}
    encoder = DINOTransformerEncoder(num_feature_levels=2, **options, **kwargs)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def _run(encoder, padding=None):
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, TOKENS, 12, generator=generator)
    output = encoder(
        query,
        query_pos=torch.randn(2, TOKENS, 12, generator=generator),
        query_key_padding_mask=padding,
        reference_points=torch.rand(2, TOKENS, 2, 2, generator=generator),
        spatial_shapes=SHAPES,
    )
    return query, output


def test_encoder__padding_is_not_looked_at():
    encoder = _encoder().eval()
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[:, -2:] = True
    query, expected = _run(encoder, padding)
    query[:, -2:] = 100.0
    changed = encoder(
        query,
        query_pos=torch.zeros_like(query),
        query_key_padding_mask=padding,
        reference_points=torch.full((2, TOKENS, 2, 2), 0.5),
        spatial_shapes=SHAPES,
    )
    query[:, -2:] = -3.0
    again = encoder(
        query,
        query_pos=torch.zeros_like(query),
        query_key_padding_mask=padding,
        reference_points=torch.full((2, TOKENS, 2, 2), 0.5),
        spatial_shapes=SHAPES,
    )
    torch.testing.assert_close(changed[:, :-2], again[:, :-2], rtol=0, atol=0)
    assert expected.shape == (2, TOKENS, 12)


def test_encoder__post_norm_is_the_last_step():
    plain, normed = _encoder().eval(), _encoder(post_norm=True).eval()
    missing, _ = normed.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["post_norm_layer.weight", "post_norm_layer.bias"]
    expected = normed.post_norm_layer(_run(plain)[1])
    torch.testing.assert_close(_run(normed)[1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_encoder__checkpointing_changes_no_gradient(dropout):
    gradients = []
    for use_checkpoint in (False, True):
        torch.manual_seed(3)
        encoder = _encoder(use_checkpoint=use_checkpoint, ffn_dropout=dropout).train()
        torch.manual_seed(4)
        _run(encoder)[1].square().sum().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
