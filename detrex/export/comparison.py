"""How far the outputs of two runs on one image are apart."""

from collections.abc import Mapping
from math import inf

import torch
from torch import Tensor

from detrex.errors import ConfigError

MAP_TOLERANCE = 5e-4
"""Of a feature map, as a share of its largest value."""

DETECTION_TOLERANCE = 2e-3
"""Of a score, and of a box as a share of the image's longer side."""

PAIRED_SHARE = 0.9
"""The share of detections that must have a partner. Where two scores are equal but for rounding,
two queries change places, and a detector with a learnt content for each place answers a little
otherwise."""


def difference(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], side: int) -> float:
    """Say how far two runs are apart.

    Args:
        expected: named feature maps, or ``boxes``, ``scores`` and ``classes``.
        got: those of the other run.
        side: the image's longer side in pixels.

    Returns:
        The largest difference: of maps as a share of the map's largest value; of detections the
        one below which `PAIRED_SHARE` of them have a partner.

    Raises:
        ConfigError: names or shapes differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    others = {name: tuple(tensor.shape) for name, tensor in got.items()}
    if shapes != others:
        raise ConfigError(f"the outputs have the shapes {others} in place of {shapes}")
    if set(expected) == {"boxes", "scores", "classes"}:
        return _of_detections(expected, got, side)
    return max(_of_maps(expected[name], got[name]) for name in expected)


def tolerance(outputs: Mapping[str, Tensor]) -> float:
    """Give the largest difference that rounding may make."""
    return DETECTION_TOLERANCE if "boxes" in outputs else MAP_TOLERANCE


def _of_maps(expected: Tensor, got: Tensor) -> float:
    scale = expected.abs().max().clamp(min=1e-12)
    return float(((expected - got).abs().max() / scale).nan_to_num(inf, posinf=inf))


def _of_detections(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], side: int) -> float:
    apart = (expected["boxes"][:, None] - got["boxes"][None]).abs().amax(-1) / side
    scores = (expected["scores"][:, None] - got["scores"][None]).abs()
    same = expected["classes"][:, None] == got["classes"][None]
    cost = torch.maximum(apart, scores).masked_fill(~same, inf)
    nearest = cost.amin(1).nan_to_num(inf, posinf=inf).sort().values
    return float(nearest[max(int(len(nearest) * PAIRED_SHARE) - 1, 0)])
