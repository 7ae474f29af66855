"""Losses of the encoder's proposals."""

import pytest
import torch

from detrex.modeling.criterion import SetCriterion, TwoStageCriterion
from detrex.modeling.matcher import HungarianMatcher
from tests.reference.predictions import random_outputs, random_targets


def _two_stage(**kwargs):
    return TwoStageCriterion(5, HungarianMatcher(2, 5, 2), {}, **kwargs)


@pytest.mark.parametrize("kind", ["focal_loss", "ce_loss"])
def test_forward__adds_the_encoder(kind):
    width = 5 + (kind == "ce_loss")
    outputs = random_outputs(2, num_classes=width, aux=1)
    encoder = random_outputs(2, queries=11, num_classes=width)
    targets = random_targets((3, 2))
    criterion = _two_stage(loss_class_type=kind)
    losses = criterion({**outputs, "enc_outputs": encoder}, targets)
    plain = SetCriterion(5, HungarianMatcher(2, 5, 2), {}, loss_class_type=kind)
    expected = plain(outputs, targets)
    expected.update({f"{name}_enc": loss for name, loss in plain(encoder, targets).items()})
    assert set(losses) == set(expected)
    torch.testing.assert_close(losses, expected)


def test_forward__binary_proposals():
    outputs, targets = random_outputs(2, aux=1), random_targets((3, 2))
    outputs["enc_outputs"] = random_outputs(2)
    losses = _two_stage(two_stage_binary_cls=True)(outputs, targets)
    plain = _two_stage()
    one_class = [{**target, "labels": target["labels"] * 0} for target in targets]
    expected = {
        name: loss for name, loss in plain(outputs, targets).items() if not name.endswith("_enc")
    }
    encoder = plain(outputs, one_class)
    expected.update({name: loss for name, loss in encoder.items() if name.endswith("_enc")})
    torch.testing.assert_close(losses, expected)


def test_forward__without_encoder_outputs_equals_set_criterion():
    outputs, targets = random_outputs(2, aux=1), random_targets((3, 2))
    losses, matches = _two_stage()(outputs, targets, return_indices=True)
    torch.testing.assert_close(
        losses, SetCriterion(5, HungarianMatcher(2, 5, 2), {})(outputs, targets)
    )
    assert len(matches) == 2


def test_forward__returns_the_matches_of_the_decoder_alone():
    outputs, targets = random_outputs(2, aux=2), random_targets((3, 2))
    _, expected = SetCriterion(5, HungarianMatcher(2, 5, 2), {})(outputs, targets, True)
    outputs["enc_outputs"] = random_outputs(2, queries=11)
    _, matches = _two_stage()(outputs, targets, return_indices=True)
    assert [[rows.tolist() for rows, _ in layer] for layer in matches] == [
        [rows.tolist() for rows, _ in layer] for layer in expected
    ]
