"""What it costs to let a prediction answer for an object.

Costs are (..., Q, T) for Q predictions and T objects; leading dimensions are images, or layers and
images of predictions whose objects are the same. All boxes are (centre x, centre y, width, height)
as shares of the image.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy, generalized_box_iou


def _of_classes(scores: Tensor, labels: Tensor) -> Tensor:
    """Pick, from (..., Q, C) scores, the (..., Q, T) ones of the (..., T) labels."""
    index = labels.unsqueeze(-2).expand(*scores.shape[:-1], labels.shape[-1])
    return scores.gather(-1, index)


class FocalLossCost(nn.Module):
    """Focal loss (arXiv:1708.02002) of naming the object's class, less that of not naming it.

    Args:
        alpha: weight of the positive class.
        gamma: exponent that weighs down easy cases.
        weight: factor of the cost.
        eps: added to probabilities under the logarithm.
    """

    def __init__(
        self, alpha: float = 0.25, gamma: float = 2.0, weight: float = 1.0, eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.weight = weight
        self.eps = eps

    def forward(
        self, pred_logits: Float[Tensor, "*b q c"], gt_labels: Int[Tensor, "*_ t"]
    ) -> Float[Tensor, "*b q t"]:
        """Compute (..., Q, T) costs of (..., Q, C) logits and (..., T) int64 labels."""
        prob = _of_classes(pred_logits, gt_labels).sigmoid()
        negative = (1 - self.alpha) * prob**self.gamma * -(1 - prob + self.eps).log()
        positive = self.alpha * (1 - prob) ** self.gamma * -(prob + self.eps).log()
        return (positive - negative) * self.weight


class _Cost(nn.Module):
    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight


class CrossEntropyCost(_Cost):
    """Negative softmax probability of the object's class (arXiv:2005.12872).

    Args:
        weight: factor of the cost.
    """

    def forward(
        self, pred_logits: Float[Tensor, "*b q c"], gt_labels: Int[Tensor, "*_ t"]
    ) -> Float[Tensor, "*b q t"]:
        """Compute (..., Q, T) costs of (..., Q, C) logits and (..., T) int64 labels."""
        return -_of_classes(pred_logits.softmax(-1), gt_labels) * self.weight


class GIoUCost(_Cost):
    """Negative generalized IoU (arXiv:1902.09630).

    Args:
        weight: factor of the cost.
    """

    def forward(
        self, pred_bboxes: Float[Tensor, "*b q 4"], gt_bboxes: Float[Tensor, "*_ t 4"]
    ) -> Float[Tensor, "*b q t"]:
        """Compute (..., Q, T) costs of (..., Q, 4) and (..., T, 4) ``cxcywh`` boxes."""
        overlap = generalized_box_iou(
            box_cxcywh_to_xyxy(pred_bboxes), box_cxcywh_to_xyxy(gt_bboxes)
        )
        return -overlap * self.weight


class L1Cost(_Cost):
    """Sum of the differences of the coordinates.

    Args:
        weight: factor of the cost.
    """

    def forward(
        self, pred_bboxes: Float[Tensor, "*b q 4"], gt_bboxes: Float[Tensor, "*_ t 4"]
    ) -> Float[Tensor, "*b q t"]:
        """Compute (..., Q, T) costs of (..., Q, 4) and (..., T, 4) ``cxcywh`` boxes."""
        return torch.cdist(pred_bboxes, gt_bboxes, p=1) * self.weight
