import pytest
import torch
from torch import nn

from detrex.modeling.inference.memory_format import Arithmetic


def _counted(module, *shape):
    with torch.no_grad(), Arithmetic() as arithmetic:
        module(torch.zeros(*shape))
    return arithmetic


LAYERS = {  # and multiplications by hand
    "dense": (nn.Conv2d(3, 5, 3), (2, 3, 7, 9), {"dense": 2 * 5 * 5 * 7 * 3 * 9}),
    "depthwise": (nn.Conv2d(3, 6, 3, groups=3), (2, 3, 7, 9), {"depthwise": 2 * 6 * 5 * 7 * 9}),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 9), {"grouped": 2 * 6 * 5 * 7 * 2 * 9}),
    "transposed": (nn.ConvTranspose2d(3, 5, 2), (2, 3, 7, 9), {"dense": 2 * 3 * 7 * 9 * 5 * 4}),
    "linear": (nn.Linear(6, 5), (2, 7, 6), {"linear": 2 * 7 * 6 * 5}),
    "no bias": (nn.Linear(6, 5, bias=False), (7, 6), {"linear": 7 * 6 * 5}),
}


@pytest.mark.parametrize(("layer", "shape", "counts"), LAYERS.values(), ids=LAYERS)
def test_arithmetic__counts_multiplications(layer, shape, counts):
    assert dict(_counted(layer, *shape).counts) == counts


def test_arithmetic__counts_products_of_attention():
    with Arithmetic() as arithmetic:
        torch.zeros(2, 3, 4) @ torch.zeros(2, 4, 5)
    assert arithmetic.counts["linear"] == 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    ("counts", "prefers"),
    [
        ({"dense": 100}, True),
        ({"dense": 30, "depthwise": 30, "linear": 40}, True),
        ({"dense": 40, "linear": 60}, False),
        ({"dense": 70, "grouped": 30}, False),
        ({"dense": 80, "grouped": 20}, True),
        ({}, False),
    ],
)
def test_prefers_channels_last__by_shares(counts, prefers):
    arithmetic = Arithmetic()
    arithmetic.counts.update(counts)
    assert arithmetic.prefers_channels_last == prefers
