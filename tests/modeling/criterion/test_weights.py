"""The names of losses and their weights."""

import pytest
from omegaconf import DictConfig

from detrex.errors import ConfigError
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.criterion.weights import check_weights, loss_terms
from detrex.modeling.dino import DINOCriterion
from detrex.modeling.matcher import HungarianMatcher
from tests.reference.predictions import random_outputs, random_targets

TERMS = ("loss_class", "loss_bbox", "loss_giou")
SUFFIXES = ("", "_0", "_11", "_enc", "_dn", "_dn_0", "_dn_11", "_dn_enc")


def test_loss_terms__are_names_without_suffix():
    assert loss_terms(term + suffix for suffix in SUFFIXES for term in TERMS) == list(TERMS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_check_weights__every_suffix_of_the_original(suffix):
    weights = {term + suffix: 2 for term in TERMS}
    assert check_weights(DictConfig(weights), TERMS) == weights


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("loss_bbx", "'loss_bbox'"),
        ("loss_bbox_ecn", "'loss_bbox_enc'"),
        ("loss_clas_dn", "'loss_class_dn'"),
        ("loss_giou_dn0", "'loss_giou_dn_0'"),
        ("loss_bbox_", "'loss_bbox'"),
        ("loss_bbox_-1", "'loss_bbox'"),
        ("loss_bbox_0_dn", "'loss_bbox_dn"),
        ("Loss_bbox", "'loss_bbox'"),
        ("mask", ""),
        ("_dn", ""),
        (7, ""),
    ],
)
@pytest.mark.parametrize("cls", [SetCriterion, DINOCriterion])
def test_init__weight_of_no_loss(cls, name, near):
    message = rf"weight for {name!r}, which is no loss; expected loss_class, .*{near}"
    with pytest.raises(ConfigError, match=message):
        cls(5, HungarianMatcher(), {"loss_class": 1.0, name: 2.0})


@pytest.mark.parametrize("weight", ["5", None, float("nan"), float("inf"), [1.0]])
def test_check_weights__no_finite_number(weight):
    with pytest.raises(ConfigError, match=r"weight_dict\['loss_bbox'\] is .*finite number"):
        check_weights({"loss_bbox": weight}, TERMS)


def test_init__losses_of_a_subclass():
    class WithMasks(SetCriterion):
        loss_terms = {**SetCriterion.loss_terms, "masks": ("loss_mask",)}

        def loss_masks(self, outputs, targets, indices, num_boxes):
            return {"loss_mask": outputs["pred_boxes"].sum() * num_boxes}

    losses = ("boxes", "masks")
    criterion = WithMasks(5, HungarianMatcher(), {"loss_mask_0": 5.0}, losses=losses)
    outputs = random_outputs(2, aux=1)
    found = criterion(outputs, random_targets((1, 2)))
    assert set(found) == {
        f"{t}{s}" for t in ("loss_bbox", "loss_giou", "loss_mask") for s in ("", "_0")
    }
    assert found["loss_mask"] == outputs["pred_boxes"].sum() * 3
    with pytest.raises(ValueError, match=r"no loss 'mask'; .*'masks'"):
        WithMasks(5, HungarianMatcher(), {}, losses=["mask"])
