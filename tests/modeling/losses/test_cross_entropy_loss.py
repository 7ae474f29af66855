"""Cross-entropy, against torch's own."""

import torch
import torch.nn.functional as F

from detrex.modeling.losses import CrossEntropyLoss, cross_entropy

CLASSES = torch.tensor([0, 2, 1, -100, 2])


def test_cross_entropy__equals_torch():
    logits, class_weight = torch.randn(5, 3), torch.rand(3)
    loss = cross_entropy(logits, CLASSES, class_weight=class_weight, reduction="none")
    expected = F.cross_entropy(logits, CLASSES, class_weight, reduction="none")
    torch.testing.assert_close(loss, expected)


def test_cross_entropy__what_a_mean_divides_by():
    logits = torch.randn(5, 3)
    total = F.cross_entropy(logits, CLASSES, reduction="sum")
    torch.testing.assert_close(cross_entropy(logits, CLASSES), total / 5)
    torch.testing.assert_close(cross_entropy(logits, CLASSES, avg_non_ignore=True), total / 4)
    torch.testing.assert_close(cross_entropy(logits, CLASSES, avg_factor=2), total / 2)


def test_cross_entropy_loss__weights_and_ignored_class():
    logits, classes, weight = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 2]), torch.arange(5)
    single = F.cross_entropy(logits, classes, reduction="none")
    loss = CrossEntropyLoss("sum", loss_weight=2.0)
    torch.testing.assert_close(loss(logits, classes, weight), 2 * (single * weight).sum())
    ignoring = loss(logits, classes, ignore_index=1)
    torch.testing.assert_close(ignoring, 2 * single[classes != 1].sum())
    torch.testing.assert_close(
        CrossEntropyLoss("sum", 2.0, ignore_index=1)(logits, classes), ignoring
    )
