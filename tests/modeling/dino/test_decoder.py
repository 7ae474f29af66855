import pytest
import torch

from detrex.modeling.dino import DINOTransformerDecoder
from detrex.modeling.dino.head import box_heads
from detrex.utils import inverse_sigmoid

SHAPES = [(5, 3), (2, 1)]
TOKENS = 17


def _decoder(heads=True, **kwargs):
    options = {"embed_dim": 12, "num_heads": 3, "feedforward_dim": 7, "num_layers": 2}
    decoder = DINOTransformerDecoder(num_feature_levels=2, **options, **kwargs)
    if heads:
        decoder.bbox_embed = box_heads(12, 3)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


def _run(decoder, ratios=1.0, padding=None):
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(2, 7, 4, generator=generator)
    states, references = decoder(
        query=torch.randn(2, 7, 12, generator=generator),
        key=None,
        value=torch.randn(2, TOKENS, 12, generator=generator),
        query_key_padding_mask=padding,
        reference_points=reference,
        valid_ratios=torch.full((2, 2, 2), ratios),
        spatial_shapes=SHAPES,
    )
    return reference, states, references


def test_decoder__each_layer_starts_where_the_last_one_ended():
    decoder = _decoder().eval()
    layers = []
    hooks = [
        layer.register_forward_hook(
            lambda _, args, kwargs, output: layers.append((kwargs["reference_points"], output)),
            with_kwargs=True,
        )
        for layer in decoder.layers
    ]
    reference, states, references = _run(decoder, ratios=0.8)
    for hook in hooks:
        hook.remove()
    for index, (seen, output) in enumerate(layers):
        expected = reference[:, :, None].expand(-1, -1, 2, -1) * 0.8
        torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(states[index], decoder.norm(output), rtol=1e-5, atol=1e-6)
        reference = (decoder.bbox_embed[index](output) + inverse_sigmoid(reference)).sigmoid()
        torch.testing.assert_close(references[index], reference, rtol=1e-5, atol=1e-6)


def test_decoder__without_heads_boxes_stay():
    reference, states, references = _run(_decoder(heads=False))
    torch.testing.assert_close(references, reference.expand(2, -1, -1, -1), rtol=0, atol=0)
    assert states.shape == (2, 2, 7, 12)


def test_decoder__last_layer_only():
    decoder = _decoder().eval()
    _, all_states, all_references = _run(decoder)
    decoder.return_intermediate = False
    _, state, reference = _run(decoder)
    torch.testing.assert_close(decoder.norm(state), all_states[-1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reference, all_references[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("twice", [False, True])
def test_decoder__look_forward_twice_lets_gradients_through(twice):
    _, _, references = _run(_decoder(look_forward_twice=twice))
    assert references.requires_grad == twice


def test_decoder__padding_queries_are_hidden():
    decoder = _decoder().eval()
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[:, 5:] = True
    _, hidden, _ = _run(decoder, padding=padding)
    _, seen, _ = _run(decoder)
    assert (hidden - seen)[:, :, :5].abs().max() > 1e-4


def test_decoder__position_is_in_the_image_frame_in_evaluation():
    decoder = _decoder()
    seen = []
    decoder.ref_point_head.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    _run(decoder.eval(), ratios=1.0)
    _run(decoder.eval(), ratios=0.5)
    torch.testing.assert_close(seen[0], seen[2], rtol=0, atol=0)
    _run(decoder.train(), ratios=0.5)
    assert not torch.equal(seen[0], seen[4])


def test_decoder__checkpointing_changes_no_gradient():
    gradients = []
    for use_checkpoint in (False, True):
        torch.manual_seed(3)
        decoder = _decoder(use_checkpoint=use_checkpoint, attn_dropout=0.0, ffn_dropout=0.0).train()
        _, states, references = _run(decoder)
        (states.square().sum() + references.square().sum()).backward()
        gradients.append({n: p.grad for n, p in decoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_decoder__embed_dim_not_a_multiple_of_four():
    with pytest.raises(ValueError, match=r"embed_dim=18 is not a multiple of 4.*use 16 or 20"):
        DINOTransformerDecoder(embed_dim=18, num_heads=3)


def test_decoder__checkpoints_only_when_asked():
    assert DINOTransformerDecoder(num_layers=1, feedforward_dim=8).use_checkpoint is False
