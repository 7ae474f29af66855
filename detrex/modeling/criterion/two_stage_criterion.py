"""The set criterion of two-stage detectors: the encoder's proposals are scored too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from detrex.modeling.matcher.assignment import Indices

from .criterion import SetCriterion
from .stack import Layer, Targets


class TwoStageCriterion(SetCriterion):
    """`SetCriterion` plus losses of the encoder's proposals (Deformable DETR, arXiv:2010.04159).

    Arguments are those of `SetCriterion`, and:

    Args:
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

    def layers(self, outputs: Mapping[str, Any], targets: Targets) -> list[Layer]:
        """List what is matched and scored: the decoder's layers, then ``enc_outputs``.

        Args:
            outputs: as in `SetCriterion.forward`, and ``enc_outputs``, a dict like one layer's,
                whose losses have the suffix ``_enc``; `forward` does not return its matches.
            targets: as in `SetCriterion.forward`.
        """
        layers = super().layers(outputs, targets)
        if "enc_outputs" not in outputs:
            return layers
        if self.two_stage_binary_cls:
            targets = [
                {**target, "labels": torch.zeros_like(target["labels"])} for target in targets
            ]
        return [*layers, Layer(outputs["enc_outputs"], targets, "_enc")]
