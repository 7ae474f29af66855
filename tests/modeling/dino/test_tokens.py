import torch

from detrex.modeling.dino.tokens import Tokens, encoder_proposals
from tests.reference.tiny_dino import SHAPES, VALID, random_levels


def _naive_proposals():
    """Centres, sides and the 0.01..0.99 rule, one token after the other."""
    proposals, inside = [], []
    for image in range(2):
        rows, flags = [], []
        for level, (h, w) in enumerate(SHAPES):
            valid_h, valid_w = VALID[image][level]
            for y in range(h):
                for x in range(w):
                    side = 0.05 * 2**level
                    box = [(x + 0.5) / valid_w, (y + 0.5) / valid_h, side, side]
                    is_image = y < valid_h and x < valid_w
                    good = is_image and all(0.01 < value < 0.99 for value in box)
                    flags.append(good)
                    box = torch.tensor(box, dtype=torch.float64)
                    rows.append(torch.logit(box) if good else torch.full((4,), float("inf")))
        proposals.append(torch.stack(rows).float())
        inside.append(flags)
    return torch.stack(proposals), torch.tensor(inside)


def test_encoder_proposals__one_token_after_the_other():
    tokens = Tokens.flatten(*random_levels(), torch.zeros(5, 32))
    proposals, inside = encoder_proposals(tokens)
    expected, expected_inside = _naive_proposals()
    assert torch.equal(inside, expected_inside)
    torch.testing.assert_close(proposals, expected, rtol=1e-5, atol=1e-5)


def test_tokens__ratios_and_order():
    features, masks, positions = random_levels(levels=2)
    level_embeds = torch.randn(2, 32)
    tokens = Tokens.flatten(features, masks, positions, level_embeds)
    torch.testing.assert_close(tokens.valid_ratios[1, 0], torch.tensor([5 / 7, 8 / 11]))
    torch.testing.assert_close(tokens.content[:, 7 * 2 + 3], features[0][:, :, 2, 3])
    expected = positions[1][:, :, 1, 2] + level_embeds[1]
    torch.testing.assert_close(tokens.position[:, 77 + 4 + 2], expected)
    assert tokens.padding.sum() == sum(mask.sum() for mask in masks)
