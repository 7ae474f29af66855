"""Detections compared as what they are: a set with scores, in which near-equal scores may swap."""

import torch
from detectron2.structures import Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def assert_same_detections(
    actual: Instances,
    expected: Instances,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    limit: int | None = None,
) -> None:
    """Pair the detections of one image one to one: the same class, box and score within tolerance.

    Args:
        actual: ``pred_boxes``, ``scores`` (highest first) and ``pred_classes``.
        expected: the same of another computation.
        rtol: relative tolerance of box coordinates and scores.
        atol: absolute tolerance, in pixels and in units of the score.
        limit: the most detections that both computations keep. Where both lists are that long,
            near-equal scores at the cut decide which detections are kept, so one whose score is
            within tolerance of the last of its list may lack a partner.
    """
    assert actual.image_size == expected.image_size
    assert len(actual) == len(expected)
    for ranked in (actual, expected):
        assert ranked.scores.isfinite().all()
        assert (ranked.scores.diff() <= 0).all(), "scores are not in descending order"
    agree = actual.pred_classes[:, None] == expected.pred_classes
    agree &= torch.isclose(actual.scores[:, None], expected.scores, rtol=rtol, atol=atol)
    boxes = (actual.pred_boxes.tensor[:, None], expected.pred_boxes.tensor)
    agree &= torch.isclose(*boxes, rtol=rtol, atol=atol).all(dim=-1)
    rows, columns = map(torch.as_tensor, linear_sum_assignment(agree.numpy(), maximize=True))
    paired = agree[rows, columns]
    at_the_cut = limit is not None and len(actual) == limit
    alone = [
        (name, detection)
        for name, ranked, partners in (("actual", actual, rows), ("expected", expected, columns))
        for detection in sorted(set(range(len(ranked))) - set(partners[paired].tolist()))
        if not (at_the_cut and _ties(ranked.scores[detection], ranked.scores[-1], rtol, atol))
    ]
    assert not alone, f"without a partner (list, rank): {alone[:10]}"


def _ties(score: Tensor, last: Tensor, rtol: float, atol: float) -> bool:
    return bool(torch.isclose(score, last, rtol=rtol, atol=atol))
