"""A Hungarian matcher whose costs are given as modules."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .assignment import Indices, Inputs, Problem, class_indices, solve
from .match_cost import FocalLossCost, GIoUCost, L1Cost


class ModifedMatcher(nn.Module):
    """Match predictions and objects one to one at the least sum of three given costs.

    The spelling is the original's.

    Args:
        cost_class: cost of (Q, C) logits and (T,) labels; `FocalLossCost(weight=2)` by default.
        cost_bbox: cost of (Q, 4) and (T, 4) boxes; `L1Cost(weight=5)` by default.
        cost_giou: cost of (Q, 4) and (T, 4) boxes; `GIoUCost(weight=2)` by default.
    """

    def __init__(
        self,
        cost_class: nn.Module | None = None,
        cost_bbox: nn.Module | None = None,
        cost_giou: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.cost_class = FocalLossCost(weight=2.0) if cost_class is None else cost_class
        self.cost_bbox = L1Cost(weight=5.0) if cost_bbox is None else cost_bbox
        self.cost_giou = GIoUCost(weight=2.0) if cost_giou is None else cost_giou

    @torch.no_grad()
    def forward(
        self,
        pred_logits: Float[Tensor, "b q c"],
        pred_bboxes: Float[Tensor, "b q 4"],
        gt_labels_list: Sequence[Int[Tensor, " _"]],
        gt_bboxes_list: Sequence[Float[Tensor, "_ 4"]],
    ) -> Indices:
        """Match each image of a batch.

        Args:
            pred_logits: (B, Q, C) logits.
            pred_bboxes: (B, Q, 4) boxes, ``cxcywh`` as shares of the image.
            gt_labels_list: (T,) int64 labels of each image; T may be 0.
            gt_bboxes_list: (T, 4) boxes of each image, like ``pred_bboxes``.

        Returns:
            For each image two int64 tensors on the CPU: indices of predictions and of the objects
            they answer for.

        Raises:
            NonFiniteLossError: when predictions or boxes are NaN or infinite.
            ValueError: when a label is not below C.
        """
        call = (pred_logits, pred_bboxes, gt_labels_list, gt_bboxes_list)
        return self.match_layers([call])[0]

    @torch.no_grad()
    def match_layers(
        self, layers: Sequence[tuple[Tensor, Tensor, Sequence[Tensor], Sequence[Tensor]]]
    ) -> list[Indices]:
        """Match several layers as `forward` matches one; they come to the CPU together.

        Args:
            layers: the four arguments of `forward` for each.

        Returns:
            The matches of each.

        Raises:
            NonFiniteLossError: when predictions or boxes are NaN or infinite.
            ValueError: when a label is not below C.
        """
        return solve([self._problem(*layer) for layer in layers])

    def _problem(
        self,
        pred_logits: Tensor,
        pred_bboxes: Tensor,
        gt_labels_list: Sequence[Tensor],
        gt_bboxes_list: Sequence[Tensor],
    ) -> Problem:
        logits_BQC, boxes_BQ4 = pred_logits.float(), pred_bboxes.float()
        num_classes = pred_logits.shape[-1]
        costs = []
        for logits, boxes, labels, gt_boxes in zip(
            logits_BQC, boxes_BQ4, gt_labels_list, gt_bboxes_list, strict=True
        ):
            cost_QT = (
                self.cost_class(logits, class_indices(labels, num_classes))
                + self.cost_bbox(boxes, gt_boxes.float())
                + self.cost_giou(boxes, gt_boxes.float())
            )
            costs.append(cost_QT.mT)
        cost_BQT = pad_sequence(costs, batch_first=True).mT
        inputs: Inputs = {
            "gt_bboxes": gt_bboxes_list,
            "pred_logits": logits_BQC,
            "pred_bboxes": boxes_BQ4,
        }
        return Problem(cost_BQT, gt_labels_list, num_classes, inputs)


HungarianMatcher = ModifedMatcher
