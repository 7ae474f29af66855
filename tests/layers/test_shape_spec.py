"""The record of a feature map is detectron2's."""

import detectron2.layers

from detrex.layers import ShapeSpec


def test_shape_spec__is_detectron2s():
    assert ShapeSpec is detectron2.layers.ShapeSpec
