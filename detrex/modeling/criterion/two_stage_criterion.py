"""The set criterion of two-stage detectors: the encoder's proposals are scored too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from detrex.modeling.matcher.assignment import Indices

from .criterion import Losses, SetCriterion, Targets, count_boxes


class TwoStageCriterion(SetCriterion):
    """`SetCriterion` plus losses of the encoder's proposals (Deformable DETR, arXiv:2010.04159).

    Args:
        num_classes: number of classes, background not counted.
        matcher: called with outputs and targets, returns a pair of index tensors per image.
        weight_dict: weights of the losses by name, for whoever sums them up; not applied here.
        losses: which losses to compute: ``class``, ``boxes``.
        eos_coef: weight of the background class in ``ce_loss``; None stands for 0.1.
        loss_class_type: ``focal_loss`` or ``ce_loss``.
        alpha: weight of the positives in the focal loss.
        gamma: exponent of the focal loss.
        two_stage_binary_cls: whether proposals are only told apart from background, all objects
            being of class 0.
    """

    def __init__(
        self,
        num_classes: int,
        matcher: Callable[..., Indices],
        weight_dict: Mapping[str, float],
        losses: Sequence[str] = ("class", "boxes"),
        eos_coef: float | None = None,
        loss_class_type: str = "focal_loss",
        alpha: float = 0.25,
        gamma: float = 2,
        two_stage_binary_cls: bool = False,
    ) -> None:
        super().__init__(
            num_classes, matcher, weight_dict, losses, eos_coef, loss_class_type, alpha, gamma
        )
        self.two_stage_binary_cls = two_stage_binary_cls

    def forward(
        self, outputs: Mapping[str, Any], targets: Targets, return_indices: bool = False
    ) -> Any:
        """Score the decoder's layers, then ``enc_outputs``.

        Args:
            outputs: as in `SetCriterion.forward`, and ``enc_outputs``, a dict like one layer's.
            targets: as in `SetCriterion.forward`.
            return_indices: as in `SetCriterion.forward`; the encoder's matches are not among them.

        Returns:
            As `SetCriterion.forward`, plus the losses of the encoder with suffix ``_enc``.
        """
        losses, matches = super().forward(outputs, targets, return_indices=True)
        if "enc_outputs" in outputs:
            losses.update(self.encoder_losses(outputs["enc_outputs"], targets))
        return (losses, matches) if return_indices else losses

    def encoder_losses(self, enc_outputs: Mapping[str, Any], targets: Targets) -> Losses:
        """Match and score the encoder's proposals.

        Args:
            enc_outputs: ``pred_logits`` (B, Q, C) and ``pred_boxes`` (B, Q, 4).
            targets: as in `SetCriterion.forward`.

        Returns:
            Scalar losses with suffix ``_enc``.
        """
        if self.two_stage_binary_cls:
            targets = [
                {**target, "labels": torch.zeros_like(target["labels"])} for target in targets
            ]
        indices = self.matcher(enc_outputs, targets)
        num_boxes = count_boxes(targets, enc_outputs["pred_logits"].device)
        return self.layer_losses(enc_outputs, targets, indices, num_boxes, "_enc")
