"""L1 losses, against loops."""

import pytest
import torch

from detrex.modeling.losses import L1Loss, l1_loss, smooth_l1_loss


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_smooth_l1_loss__equals_loop(beta):
    preds, targets = torch.randn(11), torch.randn(11)
    expected = []
    for a, b in zip(preds.tolist(), targets.tolist(), strict=True):
        gap = abs(a - b)
        expected.append(0.5 * gap * gap / beta if gap < beta else gap - 0.5 * beta)
    loss = smooth_l1_loss(preds, targets, beta=beta, reduction="none")
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_l1_loss__weighted_mean():
    preds, targets, weight = torch.randn(5, 4), torch.randn(5, 4), torch.rand(5, 4)
    expected = ((preds - targets).abs() * weight).sum() / 3
    torch.testing.assert_close(l1_loss(preds, targets, weight, avg_factor=3), expected)
    torch.testing.assert_close(L1Loss(loss_weight=5.0)(preds, targets, weight, 3), 5 * expected)


def test_l1_loss__no_boxes():
    preds = torch.zeros(0, 4, requires_grad=True)
    loss = L1Loss()(preds, torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0
