"""Rows of the survey, against timm's and torchvision's networks counted by hand."""

import pytest
import timm
import torch
from torch import nn

from detrex.catalog.analysis import (
    build_on_meta,
    kind_of,
    multiply_adds,
    survey,
    wrong_levels,
)
from detrex.errors import BackboneError
from detrex.modeling.backbone.features.input_size import InputSize


def test_survey__row_of_a_pyramid():
    row = survey("test_resnet", "timm")
    network = timm.create_model("test_resnet", features_only=True, out_indices=(2, 3, 4))
    assert row["ok"]
    assert row["reason"] == ""
    assert row["strides"] == [2, 4, 8, 16, 32]
    assert row["params"] == sum(p.numel() for p in network.parameters())
    assert (row["kind"], row["norm"], row["layout"]) == ("pyramid", "batch", "NCHW")
    assert row["levels"] == dict(zip(("res3", "res4", "res5"), row["channels"][2:], strict=True))


def test_survey__row_of_a_plain_network_counts_no_made_levels():
    row = survey("test_vit", "timm")
    network = timm.create_model("test_vit", features_only=True, out_indices=(5,))
    assert (row["kind"], row["norm"], row["strides"]) == ("flat", "layer", [16])
    assert row["params"] == sum(p.numel() for p in network.parameters())
    assert set(row["derivations"]) == {"res3", "res4", "res5"}


def test_survey__torchvision_that_meta_cannot_build():
    row = survey("regnet_x_400mf", "torchvision")
    assert row["ok"], row["reason"]
    assert row["levels"] == {"res3": 64, "res4": 160, "res5": 400}


def test_survey__failure_is_a_row():
    row = survey("resnet5O", "timm")
    assert not row["ok"]
    assert row["reason"].startswith("BackboneError: timm has no model named 'resnet5O'")


def test_survey__library():
    with pytest.raises(ValueError, match="must be 'timm' or 'torchvision', got 'keras'"):
        survey("resnet50", "keras")


def test_build_on_meta__raises_what_the_wrapper_says():
    with pytest.raises(BackboneError, match="no classifier named"):
        build_on_meta("resnet5O", "torchvision", out_strides=(8,))


def test_multiply_adds__of_one_convolution():
    network = nn.Conv2d(3, 5, 3, padding=1, device="meta")
    assert multiply_adds(network, (7, 11)) == 7 * 11 * 5 * 3 * 9


def test_kind_of():
    assert kind_of([16]) == "flat"
    assert kind_of([4, 8, 16]) == "partial"
    assert kind_of([2, 4, 8, 16, 32]) == "pyramid"


def test_wrong_levels__is_told():
    backbone = build_on_meta("test_resnet", "timm", out_strides=(8, 16))
    assert wrong_levels(backbone, (37, 53)) == ""
    truth = backbone.features
    backbone.features = type(truth)(truth.features[::-1])
    assert (
        wrong_levels(backbone, (64, 64))
        == "gives ['res3', 'res4'] where ['res4', 'res3'] are published"
    )
    wrong = [type(f)(f.name, f.source, f.channels, 2 * f.stride) for f in truth]
    backbone.features = type(truth)(tuple(wrong))
    assert "cells are published" in wrong_levels(backbone, (64, 64))


def test_wrong_levels__a_cell_that_is_missing():
    backbone = build_on_meta("inception_v3", "timm", out_strides=(8,))
    assert wrong_levels(backbone, (800, 1333)) == ""
    backbone.input_size = InputSize()
    assert "res3 is (1, 288, 97, 164) where 288 channels of 100 x 167" in wrong_levels(
        backbone, (800, 1333)
    )
    assert isinstance(backbone.network, nn.Module)
    assert all(p.is_meta for p in backbone.parameters())
    assert torch.get_default_device().type == "cpu"
