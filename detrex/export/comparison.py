"""How far the outputs of two runs on one image are apart."""

from collections.abc import Mapping
from math import inf

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detrex.errors import ConfigError

MAP_TOLERANCE = 5e-4
"""Of a feature map, as a share of its largest value."""

DETECTION_TOLERANCE = 1e-3
"""Of a class logit as a share of the range of all, and of a box as a share of the longer side."""

_MOST_CERTAIN = 1e-4
"""Scores nearer than this to 0 or 1 count as this, where float32 holds few digits of a logit."""


def difference_of_maps(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> float:
    """Say how far apart two runs' named feature maps are.

    Returns:
        The largest difference of a cell, as a share of its map's largest value; infinite for NaN.

    Raises:
        ConfigError: names or shapes differ.
    """
    require_same_shapes(expected, got)
    return max(_of_maps(expected[name], got[name]) for name in expected)


def difference_of_detections(
    logits: Float[Tensor, "q c"],
    boxes: Float[Tensor, "q 4"],
    got: Mapping[str, Tensor],
    side: int,
) -> float:
    """Say how far detections are from the best of a model's queries.

    Each detection must be a class of one of the queries, the scores those of the best, in order,
    and each pair that is better than the last of the best by more than the result among them. So
    two pairs that are equal but for rounding may change places.

    Args:
        logits: class logits (q, c) of the model.
        boxes: its boxes (q, 4), xyxy in pixels.
        got: ``boxes`` (k, 4), ``scores`` (k,) and ``classes`` (k,) of the other run.
        side: the image's longer side in pixels.

    Returns:
        The largest difference: of logits as a share of their range, of boxes as a share of the
        side; infinite for NaN and for classes that there are not.
    """
    count, classes = len(got["scores"]), got["classes"].long()
    if not count:
        return 0.0
    if classes.min() < 0 or classes.max() >= logits.shape[1]:
        return inf
    certain, found = _logit(logits.sigmoid()), _logit(got["scores"])
    scale = (certain.max() - certain.min()).clamp(min=1e-6)
    best, index = certain.flatten().topk(count)
    query, kind = index // logits.shape[1], index % logits.shape[1]
    of_ranks = (best - found).abs().max() / scale
    # (k, q): a detection and each query's logit for its class, and box
    of_detections = _apart(certain[:, classes].T, found[:, None], scale)
    of_detections = of_detections.maximum(_boxes_apart(got["boxes"], boxes, side)).amin(1).max()
    # (k, k): each of the best and the detections of its class
    of_best = _apart(best[:, None], found[None], scale)
    of_best = of_best.maximum(_boxes_apart(boxes[query], got["boxes"], side))
    of_best = of_best.masked_fill(kind[:, None] != classes[None], inf).amin(1)
    above = (best - best[-1]) / scale
    of_best = of_best.minimum(above).max()
    return _number(torch.stack([of_ranks, of_detections, of_best]).amax())


def difference_of_choices(
    scores: Float[Tensor, " s"], expected: Int[Tensor, " k"], got: Int[Tensor, " _"]
) -> float:
    """Say how far the choice of the best tokens is from the model's.

    Args:
        scores: of the model's tokens (s,); those of padding are -inf.
        expected: the model's choice (k,), the best first.
        got: that of the other run (k,).

    Returns:
        The largest difference, in the model's own scores, between tokens of the same rank, as a
        share of the range of scores; infinite where a token is chosen twice.
    """
    if got.shape != expected.shape or len(got.unique()) < len(got):
        return inf
    finite = scores[scores.isfinite()]
    scale = (finite.max() - finite.min()).clamp(min=1e-6) if len(finite) else 1.0
    own, other = scores[expected], scores[got]
    return _number(torch.where(own == other, 0.0, (own - other).abs() / scale).max())


def require_same_shapes(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Raise a ConfigError where names or shapes of outputs differ."""
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    others = {name: tuple(tensor.shape) for name, tensor in got.items()}
    if shapes != others:
        raise ConfigError(f"the outputs have the shapes {others} in place of {shapes}")


def _of_maps(expected: Tensor, got: Tensor) -> float:
    scale = expected.abs().max().clamp(min=1e-12)
    return _number((expected - got).abs().max() / scale)


def _logit(scores: Tensor) -> Tensor:
    return torch.logit(scores, _MOST_CERTAIN)


def _apart(expected: Tensor, got: Tensor, scale: Tensor) -> Tensor:
    return (expected - got).abs() / scale


def _boxes_apart(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    return (rows[:, None] - columns[None]).abs().amax(-1) / side


def _number(apart: Tensor) -> float:
    return float(apart.nan_to_num(inf, posinf=inf))
