import pytest
import torch

from detrex.errors import ConfigError
from detrex.modeling.dino import (
    DINOTransformer,
    DINOTransformerDecoder,
    DINOTransformerEncoder,
)
from detrex.modeling.dino.head import box_heads, class_heads
from detrex.modeling.dino.tokens import Layout, flatten_levels
from tests.reference.tiny_dino import VALID, random_levels, tiny_transformer


def _transformer(**kwargs):
    transformer = tiny_transformer(**kwargs)
    layers = transformer.decoder.num_layers + 1
    transformer.decoder.class_embed = class_heads(transformer.embed_dim, 5, layers)
    transformer.decoder.bbox_embed = box_heads(transformer.embed_dim, layers)
    return transformer


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("learnt", [False, True])
def test_forward__shapes_for_any_number_of_levels(levels, learnt):
    transformer = _transformer(levels=levels, learnt_init_query=learnt)
    states = transformer(*random_levels(levels))
    assert states.inter_states.shape == (2, 2, 11, 32)
    assert states.init_reference.shape == states.enc_reference.shape == (2, 11, 4)
    assert states.layer_references.shape == (2, 2, 11, 4)
    assert states.query_padding is None


def test_forward__denoising_queries_come_first():
    transformer = _transformer(levels=2)
    boxes = torch.randn(2, 3, 4)
    mask = torch.zeros(14, 14, dtype=torch.bool)
    mask[3:, :3] = True
    with_queries = transformer(
        *random_levels(2), query_embed=(torch.randn(2, 3, 32), boxes), attn_masks=[mask, None]
    )
    assert with_queries.inter_states.shape[2] == 14
    torch.testing.assert_close(with_queries.init_reference[:, :3], boxes.sigmoid())


def test_forward__matching_queries_do_not_see_denoising_ones():
    transformer = _transformer(levels=2)
    inputs = random_levels(2)
    mask = torch.zeros(14, 14, dtype=torch.bool)
    mask[3:, :3] = True
    prompt = (torch.randn(2, 3, 32), torch.randn(2, 3, 4))
    prompted = transformer(*inputs, query_embed=prompt, attn_masks=[mask, None])
    plain = transformer(*inputs)
    torch.testing.assert_close(
        prompted.inter_states[:, :, 3:], plain.inter_states, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("training", [False, True])
def test_forward__more_queries_than_tokens(training):
    transformer = _transformer(levels=2, queries=1000).train(training)
    features, masks, positions = random_levels(2)
    assert transformer.num_queries(features) == 97
    states = transformer(features, masks, positions)
    assert states.inter_states.shape[2] == 97
    assert states.inter_states.isfinite().all()
    if not training:
        valid = [sum(h * w for h, w in image[:2]) for image in VALID]
        assert (~states.query_padding).sum(1).tolist() == valid


def test_select_queries__highest_scores_first():
    transformer = _transformer(levels=3, queries=9).eval()
    torch.nn.init.normal_(transformer.decoder.class_embed[-1].weight)
    features, masks, _ = random_levels(3)
    layout = Layout.of_masks(masks)
    memory = torch.randn_like(flatten_levels(features))
    content, _, padding = transformer.select_queries(memory, layout)
    scores = transformer.decoder.class_embed[-1](content).amax(-1)
    assert (scores.diff(dim=1) <= 0).all()
    assert not padding.any()
    all_content = transformer.enc_output_norm(
        transformer.enc_output(memory.masked_fill(~layout.inside[..., None], 0))
    )
    all_scores = transformer.decoder.class_embed[-1](all_content).amax(-1)
    for image in range(2):
        ranked = sorted(all_scores[image][~layout.padding[image]].tolist(), reverse=True)[:9]
        torch.testing.assert_close(scores[image], torch.tensor(ranked), rtol=1e-5, atol=1e-5)


def test_select_queries__gradients_are_those_of_all_tokens():
    transformer = _transformer(levels=3, queries=9).train()
    features, masks, _ = random_levels(3)
    layout = Layout.of_masks(masks)
    memory = torch.randn_like(flatten_levels(features)).requires_grad_()
    found, _, _ = transformer.select_queries(memory, layout)
    states = transformer.enc_output_norm(
        transformer.enc_output(memory.masked_fill(~layout.inside[..., None], 0))
    )
    index = transformer.decoder.class_embed[-1](states).amax(-1).topk(9).indices
    expected = states.gather(1, index[..., None].expand(-1, -1, 32))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    inputs = [memory, *transformer.enc_output.parameters()]
    seed = torch.randn_like(found)
    gradients = [torch.autograd.grad(out, inputs, seed) for out in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_forward__runs_on_meta():
    transformer = _transformer(levels=2).to("meta").eval()
    inputs = [[tensor.to("meta") for tensor in tensors] for tensors in random_levels(2)]
    assert transformer(*inputs).inter_states.shape == (2, 2, 11, 32)


def test_select_queries__without_heads():
    with pytest.raises(ConfigError, match="has no heads to score proposals with"):
        tiny_transformer(levels=2)(*random_levels(2))


def test_forward__wrong_number_of_levels():
    with pytest.raises(ValueError, match=r"gives 2 feature levels.*num_feature_levels=3.*num_outs"):
        _transformer(levels=3)(*random_levels(2))


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("embed_dim", {"embed_dim": 32}, {"embed_dim": 64}),
        ("num_feature_levels", {"num_feature_levels": 3}, {}),
    ],
)
def test_init__parts_that_disagree(name, encoder, decoder):
    options = {"embed_dim": 32, "num_heads": 4, "feedforward_dim": 8, "num_layers": 1}
    with pytest.raises(ConfigError, match=f"transformer.{name}.*transformer.decoder.{name}"):
        DINOTransformer(
            DINOTransformerEncoder(**{**options, **encoder}),
            DINOTransformerDecoder(**{**options, **decoder}),
        )
