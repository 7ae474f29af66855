"""Maps by stride, by the names of stages, by place."""

import pytest

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.huggingface_backbone.outputs import choose_outputs
from detrex.modeling.pixel_statistics import IMAGENET

SPEC = NetworkSpec(
    "net",
    tuple(FeatureInfo(f"stage{i}", i, 8 * i, 2**i) for i in range(2, 6)),
    *(InputSize(), (64, 64), 3, IMAGENET),
)


@pytest.mark.parametrize(
    ("strides", "features", "indices", "expected"),
    [
        (None, None, None, {"res3": 8, "res4": 16, "res5": 32}),
        ((4, 32), None, None, {"res2": 4, "res5": 32}),
        (None, ["res4"], None, {"res4": 16}),
        (None, ["stage5", "stage2"], None, {"stage5": 32, "stage2": 4}),
        (None, None, [-1, 2], {"p-1": 32, "p2": 4}),
    ],
)
def test_choose_outputs(strides, features, indices, expected):
    assert choose_outputs(SPEC, strides, features, indices, None).features.strides == expected


@pytest.mark.parametrize("features", [["stage9"], ["stage2", "res4"], ["stage2", "stage2"], []])
def test_choose_outputs__of_names_that_are_not_there(features):
    with pytest.raises(BackboneError, match="got out_features="):
        choose_outputs(SPEC, None, features, None, None)
    with pytest.raises(TypeError, match="sequence of names"):
        choose_outputs(SPEC, None, "stage2", None, None)
