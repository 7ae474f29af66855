import torch

from detrex.modeling.dino.tokens import Layout, flatten_levels
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


def test_layout__proposals_one_token_after_the_other():
    layout = Layout.of_masks(random_levels()[1])
    expected, expected_inside = _naive_proposals()
    assert torch.equal(layout.inside, expected_inside)
    torch.testing.assert_close(layout.proposals, expected, rtol=1e-5, atol=1e-5)


def test_layout__ratios_and_references():
    masks = random_levels(levels=2)[1]
    layout = Layout.of_masks(masks)
    ratios = torch.tensor([5 / 7, 8 / 11])
    torch.testing.assert_close(layout.valid_ratios[1, 0], ratios)
    center = torch.tensor([3.5 / 5, 2.5 / 8])
    torch.testing.assert_close(layout.centers[1, 7 * 2 + 3], center)
    torch.testing.assert_close(layout.references[1, 7 * 2 + 3, 0], center * ratios)
    assert layout.padding.sum() == sum(mask.sum() for mask in masks)


def test_layout__without_padding_one_image_stands_for_all():
    masks = [torch.zeros(3, h, w, dtype=torch.bool) for h, w in SHAPES]
    expected = vars(Layout.of_masks(masks))
    layout = Layout.of_masks([mask[:1] for mask in masks], padded=False).for_images(3)
    assert layout.padding is None
    for name in ("valid_ratios", "centers", "references", "proposals", "inside"):
        torch.testing.assert_close(getattr(layout, name), expected[name], rtol=0, atol=0)


def test_flatten_levels__order():
    features, _, _ = random_levels(levels=2)
    tokens = flatten_levels(features)
    torch.testing.assert_close(tokens[:, 7 * 2 + 3], features[0][:, :, 2, 3], rtol=0, atol=0)
    torch.testing.assert_close(tokens[:, 77 + 4 + 2], features[1][:, :, 1, 2], rtol=0, atol=0)
