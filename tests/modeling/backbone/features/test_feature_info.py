import pytest
import torch
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import (
    Feature,
    FeatureTable,
    describe_feature,
    map_layout,
    resolve_indices,
)

SIZE = (48, 80)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_to_map__lays_tokens_on_their_grid(prefix):
    feature = Feature("p3", "blocks.2", 7, 16, "NLC", prefix)
    raw = torch.randn(2, prefix + 3 * 5, 7)
    fmap = feature.to_map(raw, SIZE)
    for y in range(3):
        for x in range(5):
            assert_close(fmap[:, :, y, x], raw[:, prefix + 5 * y + x], rtol=0, atol=0)


def test_to_map__permutes_nhwc_and_leaves_nchw():
    raw = torch.randn(2, 3, 5, 7)
    assert Feature("a", 0, 3, 16).to_map(raw, SIZE) is raw
    fmap = Feature("a", 0, 7, 16, "NHWC").to_map(raw, SIZE)
    assert_close(fmap, torch.einsum("nhwc->nchw", raw), rtol=0, atol=0)
    assert fmap.is_contiguous()


def test_to_map__refuses_tokens_of_another_size():
    feature = Feature("p3", "blocks.2", 7, 16, "NLC")
    with pytest.raises(BackboneError, match=r"'p3' has 14 tokens .* a multiple of 16"):
        feature.to_map(torch.zeros(2, 14, 7), SIZE)


def test_feature_table__gives_maps_in_its_order():
    table = FeatureTable((Feature("b", 3, 5, 16), Feature("a", 1, 3, 8)))
    maps = table.to_maps({"a": torch.zeros(1), "b": torch.ones(1), "c": torch.ones(1)}, SIZE)
    assert list(maps) == table.names == ["b", "a"]
    assert table.channels == {"b": 5, "a": 3}
    assert table.strides == {"b": 16, "a": 8}
    assert str(table) == "b = 3 (5 channels, stride 16), a = 1 (3 channels, stride 8)"


def test_resolve_indices__counts_from_the_end_and_keeps_the_order():
    assert resolve_indices([3, -4, 1], (2, 4, 8, 16), "net") == [3, 0, 1]


@pytest.mark.parametrize("indices", [(4,), (-5,), (), (0, 9)])
def test_resolve_indices__names_what_there_is(indices):
    match = r"net has the feature indices 0 \(stride 2\), 1 \(stride 4\), .* got out_indices="
    with pytest.raises(BackboneError, match=match):
        resolve_indices(indices, (2, 4, 8, 16), "net")


@pytest.mark.parametrize("indices", [(1, 1), (1, -3)])
def test_resolve_indices__refuses_duplicates(indices):
    with pytest.raises(BackboneError, match="more than once"):
        resolve_indices(indices, (2, 4, 8, 16), "net")


@pytest.mark.parametrize("indices", [3, 1.5, None, "012", (1.0,), (True,)])
def test_resolve_indices__wants_integers(indices):
    with pytest.raises(TypeError, match="must be a sequence of integers"):
        resolve_indices(indices, (2, 4, 8, 16), "net")


@pytest.mark.parametrize(
    ("shapes", "sizes", "expected"),
    [
        ([(2, 7, 6, 10)], [SIZE], (7, 8, "NCHW", 0)),
        ([(2, 6, 10, 7)], [SIZE], (7, 8, "NHWC", 0)),
        ([(2, 64, 28, 28)], [(224, 224)], (64, 8, "NCHW", 0)),
        ([(2, 28, 28, 64)], [(224, 224)], (64, 8, "NHWC", 0)),
        ([(2, 5, 14, 18), (2, 5, 30, 38)], [(256, 320), (512, 640)], (5, 16, "NCHW", 0)),
        ([(2, 197, 5)], [(224, 224)], (5, 16, "NLC", 1)),
        ([(2, 15, 5)], [SIZE], (5, 16, "NLC", 0)),
        ([(2, 54, 5)], [SIZE], None),
    ],
)
def test_describe_feature(shapes, sizes, expected):
    if expected is None:
        with pytest.raises(BackboneError, match="no grid of square patches"):
            describe_feature("p", "node", shapes, sizes)
        return
    feature = describe_feature("p", "node", shapes, sizes)
    found = (feature.channels, feature.stride, feature.layout, feature.prefix_tokens)
    assert found == expected


def test_describe_feature__refuses_what_does_not_grow():
    with pytest.raises(BackboneError, match="whatever the size of the image"):
        describe_feature("p", "pool", [(2, 5, 1, 1)] * 2, [(256, 320), (512, 640)])


def test_describe_feature__refuses_vectors():
    with pytest.raises(BackboneError, match=r"shape \(2, 5\), which is no feature map"):
        describe_feature("p", "flatten", [(2, 5)], [SIZE])


def test_map_layout__prefers_nchw():
    assert map_layout((2, 8, 8, 8), (64, 64)) == "NCHW"
