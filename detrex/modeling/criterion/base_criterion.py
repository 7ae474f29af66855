"""A set criterion put together from a matcher and three losses."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from detrex.layers.box_ops import box_cxcywh_to_xyxy
from detrex.modeling.losses import FocalLoss, GIoULoss, L1Loss
from detrex.modeling.matcher.assignment import Indices, match_together
from detrex.modeling.matcher.modified_matcher import ModifedMatcher
from detrex.utils.misc import at_least_float32

from .criterion import Losses, count_boxes, pair_up
from .stack import Stack, Targets


class BaseCriterion(nn.Module):
    """Match each layer's predictions with the objects and score them by the given losses.

    Args:
        num_classes: number of classes, background not counted.
        matcher: called with logits, boxes and lists of labels and boxes; `ModifedMatcher()` by
            default.
        loss_class: loss of (B * Q, C) logits and (B * Q,) classes; `FocalLoss()` by default.
        loss_bbox: loss of ``cxcywh`` boxes; `L1Loss(loss_weight=5)` by default.
        loss_giou: loss of ``xyxy`` boxes; `GIoULoss(loss_weight=2)` by default.
    """

    def __init__(
        self,
        num_classes: int,
        matcher: nn.Module | None = None,
        loss_class: nn.Module | None = None,
        loss_bbox: nn.Module | None = None,
        loss_giou: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.matcher = ModifedMatcher() if matcher is None else matcher
        self.loss_class = FocalLoss() if loss_class is None else loss_class
        self.loss_bbox = L1Loss(loss_weight=5.0) if loss_bbox is None else loss_bbox
        self.loss_giou = GIoULoss(loss_weight=2.0) if loss_giou is None else loss_giou

    def _get_src_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return pair_up(indices, 0)

    def _get_tgt_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return pair_up(indices, 1)

    def calculate_class_loss(
        self,
        pred_logits: Float[Tensor, "b q c"],
        targets: Targets,
        indices: Indices,
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        """Score the (B, Q, C) logits of one layer."""
        stack = Stack([{"pred_logits": pred_logits}], targets, [indices])
        classes = stack.classes(self.num_classes)
        return self.loss_class(pred_logits.flatten(0, 1), classes.flatten(), avg_factor=num_boxes)

    def calculate_bbox_loss(
        self,
        pred_boxes: Float[Tensor, "b q 4"],
        targets: Targets,
        indices: Indices,
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        """Score the coordinates of the matched ones of the (B, Q, 4) boxes of one layer."""
        boxes, truth = Stack([{"pred_boxes": pred_boxes}], targets, [indices]).matched_boxes()
        return self.loss_bbox(boxes, truth, avg_factor=num_boxes)

    def calculate_giou_loss(
        self,
        pred_boxes: Float[Tensor, "b q 4"],
        targets: Targets,
        indices: Indices,
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        """Score the overlap of the matched ones of the (B, Q, 4) boxes of one layer."""
        boxes, truth = Stack([{"pred_boxes": pred_boxes}], targets, [indices]).matched_boxes()
        boxes, truth = box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(truth)
        return self.loss_giou(boxes, truth, avg_factor=num_boxes)

    def forward(self, outputs: Mapping[str, Any], targets: Targets) -> Losses:
        """Match and score the last layer, then each of ``aux_outputs``.

        Args:
            outputs: as in `SetCriterion.forward`.
            targets: as in `SetCriterion.forward`.

        Returns:
            Scalar losses ``loss_class``, ``loss_bbox``, ``loss_giou``, weights applied, those of
            layer i with suffix ``_{i}``.
        """
        num_boxes = count_boxes(targets)
        labels = [target["labels"] for target in targets]
        boxes = [target["boxes"] for target in targets]
        layers = [outputs, *outputs.get("aux_outputs", ())]
        predictions = [
            (at_least_float32(layer["pred_logits"]), at_least_float32(layer["pred_boxes"]))
            for layer in layers
        ]
        matches = match_together(self.matcher, [(*layer, labels, boxes) for layer in predictions])
        losses: Losses = {}
        for i, ((logits, layer_boxes), indices) in enumerate(
            zip(predictions, matches, strict=True), start=-1
        ):
            suffix = "" if i < 0 else f"_{i}"
            scored = (targets, indices, num_boxes)
            losses["loss_class" + suffix] = self.calculate_class_loss(logits, *scored)
            losses["loss_bbox" + suffix] = self.calculate_bbox_loss(layer_boxes, *scored)
            losses["loss_giou" + suffix] = self.calculate_giou_loss(layer_boxes, *scored)
        return losses
