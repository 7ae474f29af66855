"""The Hungarian matcher of DETR."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .assignment import Indices, Problem, alike, class_indices, solve
from .match_cost import CrossEntropyCost, FocalLossCost, GIoUCost, L1Cost

_INPUTS = ("pred_logits", "pred_boxes")
_CLASS_COSTS = ("focal_loss_cost", "ce_cost")


class HungarianMatcher(nn.Module):
    """Match predictions and objects one to one at the least cost (arXiv:2005.12872, sect. 3.1).

    Args:
        cost_class: weight of the classification cost.
        cost_bbox: weight of the L1 distance of the boxes.
        cost_giou: weight of the generalized IoU of the boxes.
        cost_class_type: ``focal_loss_cost`` or ``ce_cost``.
        alpha: weight of the positive class in the focal cost.
        gamma: exponent of the focal cost.

    Raises:
        ValueError: when all weights are 0 or the kind of cost is unknown.
    """

    def __init__(
        self,
        cost_class: float = 1,
        cost_bbox: float = 1,
        cost_giou: float = 1,
        cost_class_type: str = "focal_loss_cost",
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        if cost_class == cost_bbox == cost_giou == 0:
            raise ValueError(
                "cost_class, cost_bbox and cost_giou are all 0; at least one must not be."
            )
        if cost_class_type not in _CLASS_COSTS:
            raise ValueError(
                f"cost_class_type must be {' or '.join(map(repr, _CLASS_COSTS))}, got "
                f"{cost_class_type!r}."
            )
        self.cost_class = cost_class
        self.cost_bbox = cost_bbox
        self.cost_giou = cost_giou
        self.cost_class_type = cost_class_type
        self.alpha = alpha
        self.gamma = gamma

    @torch.no_grad()
    def forward(
        self, outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> Indices:
        """Match each image of a batch.

        Args:
            outputs: ``pred_logits`` (B, Q, C) and ``pred_boxes`` (B, Q, 4), ``cxcywh`` as shares of
                the image.
            targets: for each image ``labels`` (T,) int64 and ``boxes`` (T, 4), likewise; T may be
                0.

        Returns:
            For each image two int64 tensors on the CPU of min(Q, T) entries: indices of
            predictions, ascending, and of the objects they answer for.

        Raises:
            NonFiniteLossError: when predictions or boxes are NaN or infinite.
            ValueError: when a label is not below C.
        """
        return self.match_layers([(outputs, targets)])[0]

    @torch.no_grad()
    def match_layers(
        self, layers: Sequence[tuple[Mapping[str, Tensor], Sequence[Mapping[str, Tensor]]]]
    ) -> list[Indices]:
        """Match several layers as `forward` matches one; they come to the CPU together.

        Args:
            layers: outputs and targets of each.

        Returns:
            The matches of each.

        Raises:
            NonFiniteLossError: when predictions or boxes are NaN or infinite.
            ValueError: when a label is not below C.
        """
        problems: dict[int, Problem] = {}
        for group in alike(
            (id(targets), *(outputs[name].shape for name in _INPUTS)) for outputs, targets in layers
        ):
            logits, boxes = (
                torch.stack([layers[i][0][name] for i in group]).float() for name in _INPUTS
            )
            of_group = self._problems(logits, boxes, layers[group[0]][1])
            problems.update(zip(group, of_group, strict=True))
        return solve([problems[i] for i in range(len(layers))])

    def _problems(
        self,
        logits_LBQC: Tensor,
        boxes_LBQ4: Tensor,
        targets: Sequence[Mapping[str, Tensor]],
    ) -> list[Problem]:
        """Lay out the problems of L layers whose predictions have the same shapes."""
        target_labels = [target["labels"] for target in targets]
        target_boxes = [target["boxes"].float() for target in targets]
        num_classes = logits_LBQC.shape[-1]
        labels_BT = class_indices(pad_sequence(target_labels, batch_first=True), num_classes)
        boxes_BT4 = pad_sequence(target_boxes, batch_first=True)
        if self.cost_class_type == "focal_loss_cost":
            class_cost: nn.Module = FocalLossCost(self.alpha, self.gamma, self.cost_class)
        else:
            class_cost = CrossEntropyCost(self.cost_class)
        cost_LBQT = (
            class_cost(logits_LBQC, labels_BT)
            + L1Cost(self.cost_bbox)(boxes_LBQ4, boxes_BT4)
            + GIoUCost(self.cost_giou)(boxes_LBQ4, boxes_BT4)
        )
        problems = []
        for cost, logits, boxes in zip(cost_LBQT, logits_LBQC, boxes_LBQ4, strict=True):
            inputs = {"target boxes": target_boxes, "pred_logits": logits, "pred_boxes": boxes}
            problems.append(Problem(cost, target_labels, num_classes, inputs))
        return problems

    def __repr__(self, _repr_indent: int = 4) -> str:
        """List the settings, each indented by ``_repr_indent`` spaces."""
        names = ("cost_class", "cost_bbox", "cost_giou", "cost_class_type", "alpha", "gamma")
        lines = [f"{' ' * _repr_indent}{name}: {getattr(self, name)}" for name in names]
        return "\n".join([f"Matcher {type(self).__name__}", *lines])
