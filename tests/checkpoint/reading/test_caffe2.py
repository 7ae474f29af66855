import pytest

from detrex.checkpoint.reading.caffe2 import is_caffe2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["conv1_w", "res2_0_branch2a_bn_s"], True),
        (["conv1.weight"], False),
        (["weight", "bias"], False),
        (["conv1_w", "layer.x_w"], False),
    ],
)
def test_is_caffe2(names, expected):
    assert is_caffe2(names) is expected
