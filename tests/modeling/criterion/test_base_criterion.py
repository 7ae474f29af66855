"""The criterion that is put together from losses."""

import pytest
import torch

from detrex.modeling.criterion import BaseCriterion, SetCriterion
from detrex.modeling.losses import FocalLoss, L1Loss
from detrex.modeling.matcher import HungarianMatcher
from tests.reference.predictions import random_outputs, random_targets


@pytest.mark.parametrize("counts", [(3, 2), (3, 0), (0, 0)])
def test_forward__equals_set_criterion_with_weights(counts):
    outputs, targets = random_outputs(2, aux=1), random_targets(counts)
    losses = BaseCriterion(5)(outputs, targets)
    expected = SetCriterion(5, HungarianMatcher(2, 5, 2), {})(outputs, targets)
    weights = {"class": 1.0, "bbox": 5.0, "giou": 2.0}
    weighted = {name: loss * weights[name.split("_")[1]] for name, loss in expected.items()}
    # The L1 loss is a mean over objects here too: its sum divided by their number.
    torch.testing.assert_close(losses, weighted, rtol=1e-5, atol=1e-5)


def test_init__own_losses():
    criterion = BaseCriterion(
        5, loss_class=FocalLoss(loss_weight=3.0), loss_bbox=L1Loss(loss_weight=10.0)
    )
    outputs, targets = random_outputs(2), random_targets((3, 2))
    losses, plain = criterion(outputs, targets), BaseCriterion(5)(outputs, targets)
    torch.testing.assert_close(losses["loss_class"], 3 * plain["loss_class"])
    torch.testing.assert_close(losses["loss_bbox"], 2 * plain["loss_bbox"])


def test_permutations__are_pairs_of_image_and_index():
    indices = [(torch.tensor([1, 4]), torch.tensor([1, 0]))]
    assert BaseCriterion(5)._get_src_permutation_idx(indices)[1].tolist() == [1, 4]
    assert BaseCriterion(5)._get_tgt_permutation_idx(indices)[1].tolist() == [1, 0]
