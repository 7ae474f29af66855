"""Dice loss, against its formula."""

import torch

from detrex.modeling.losses import DiceLoss, dice_loss


def test_dice_loss__equals_formula():
    probabilities, masks = torch.rand(2, 3, 5), torch.randint(2, (2, 3, 5))
    loss = dice_loss(probabilities, masks, eps=0.01, reduction="none")
    for i in range(2):
        p, m = probabilities[i].flatten().tolist(), masks[i].flatten().tolist()
        overlap = sum(a * b for a, b in zip(p, m, strict=True))
        total = sum(a * a for a in p) + sum(b * b for b in m) + 0.02
        torch.testing.assert_close(loss[i], torch.tensor(1 - 2 * overlap / total))


def test_dice_loss__perfect_and_empty_masks():
    masks = torch.zeros(2, 5)
    masks[0, :3] = 1
    loss = dice_loss(masks, masks, reduction="none")
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.0]), rtol=0, atol=1e-4)


def test_dice_loss_module__sigmoid_and_weight():
    logits, masks, weight = torch.randn(2, 7), torch.randint(2, (2, 7)), torch.rand(2)
    expected = 3 * dice_loss(logits.sigmoid(), masks, weight, 1e-3)
    torch.testing.assert_close(DiceLoss(loss_weight=3.0)(logits, masks, weight), expected)
    plain = DiceLoss(use_sigmoid=False, loss_weight=3.0)
    torch.testing.assert_close(plain(logits.sigmoid(), masks, weight), expected)
