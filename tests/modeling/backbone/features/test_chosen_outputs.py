"""Indices of a network's maps, as a user gives them."""

import pytest

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.chosen_outputs import features_at
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.pixel_statistics import IMAGENET

SPEC = NetworkSpec(
    "net",
    tuple(FeatureInfo(str(i), i, 8, stride) for i, stride in enumerate((2, 4, 8, 16))),
    InputSize(),
    (64, 64),
    3,
    IMAGENET,
)


def test_features_at__counts_from_the_end_and_keeps_the_order():
    assert features_at([3, -4, 1], SPEC) == [SPEC.features[index] for index in (3, 0, 1)]


@pytest.mark.parametrize("indices", [(4,), (-5,), (), (0, 9)])
def test_features_at__names_what_there_is(indices):
    match = r"net has the feature indices 0 \(stride 2\), 1 \(stride 4\), .* got out_indices="
    with pytest.raises(BackboneError, match=match):
        features_at(indices, SPEC)


@pytest.mark.parametrize("indices", [(1, 1), (1, -3)])
def test_features_at__refuses_duplicates(indices):
    with pytest.raises(BackboneError, match="more than once"):
        features_at(indices, SPEC)


@pytest.mark.parametrize("indices", [3, 1.5, None, "012", (1.0,), (True,)])
def test_features_at__wants_integers(indices):
    with pytest.raises(TypeError, match="must be a sequence of integers"):
        features_at(indices, SPEC)
