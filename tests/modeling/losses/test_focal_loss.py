"""Focal loss, against a loop and torchvision."""

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from detrex.modeling.losses import FocalLoss, sigmoid_focal_loss
from detrex.modeling.losses.focal_loss import focal_loss_with_prob
from tests.reference.loops import focal


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.7, 1.0)])
def test_sigmoid_focal_loss__equals_loop(alpha, gamma):
    logits, targets = torch.randn(5, 3), torch.randint(2, (5, 3))
    loss = sigmoid_focal_loss(logits, targets, None, alpha, gamma, "none")
    expected = torch.tensor(
        [
            [focal(x, t, alpha, gamma) for x, t in zip(*rows, strict=True)]
            for rows in zip(logits.tolist(), targets.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_sigmoid_focal_loss__without_alpha_equals_torchvision():
    logits, targets = torch.randn(5, 3), torch.rand(5, 3)
    expected = torchvision_focal_loss(logits, targets, alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, alpha=-1), expected)


def test_sigmoid_focal_loss__classes_equal_one_hot_rows():
    logits, classes = torch.randn(5, 3), torch.tensor([0, 2, 3, 1, 3])
    rows = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]])
    weight = torch.rand(5)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, classes, weight, avg_factor=2),
        sigmoid_focal_loss(logits, rows, weight[:, None].expand(5, 3), avg_factor=2),
    )


def test_sigmoid_focal_loss__certain_predictions_have_finite_gradients():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    sigmoid_focal_loss(logits, torch.tensor([[0, 1]])).backward()
    assert logits.grad.isfinite().all()


def test_focal_loss_with_prob__equals_loss_of_logits():
    logits, classes = torch.randn(5, 3), torch.tensor([0, 2, 3, 1, 3])
    torch.testing.assert_close(
        focal_loss_with_prob(logits.sigmoid(), classes, reduction="sum"),
        sigmoid_focal_loss(logits, classes, reduction="sum"),
    )


@pytest.mark.parametrize("activated", [False, True])
def test_focal_loss__weight_and_activation(activated):
    logits, classes = torch.randn(5, 3), torch.tensor([0, 2, 3, 1, 3])
    loss = FocalLoss(0.3, 1.5, "sum", loss_weight=2.0, activated=activated)
    expected = 2 * sigmoid_focal_loss(logits, classes, None, 0.3, 1.5, "sum")
    torch.testing.assert_close(loss(logits.sigmoid() if activated else logits, classes), expected)
