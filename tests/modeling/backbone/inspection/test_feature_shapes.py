"""Layout, channels and stride of a feature are told by its shapes."""

import pytest

from detrex.errors import BackboneError
from detrex.modeling.backbone.inspection.feature_shapes import describe_feature, map_layout

SIZE = (48, 80)


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
