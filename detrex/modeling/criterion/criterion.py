"""The set criterion of DETR: match each layer's predictions with objects, score the pairs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detrex.errors import did_you_mean
from detrex.layers.box_ops import box_cxcywh_to_xyxy, paired_generalized_box_iou
from detrex.modeling.losses.focal_loss import binary_focal_loss
from detrex.modeling.matcher.assignment import Indices, alike, match_together
from detrex.utils.dist import exchange

from .stack import Layer, Stack, Targets
from .weights import check_weights

Losses = dict[str, Tensor]

_CLASS_LOSSES = ("focal_loss", "ce_loss")
_DEFAULT_EOS_COEF = 0.1


def sigmoid_focal_loss(
    inputs: Float[Tensor, "b q c"],
    targets: Float[Tensor, "b q c"],
    num_boxes: float | Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
) -> Float[Tensor, ""]:
    """Focal loss (arXiv:1708.02002) of a batch, per object and as a mean over the queries.

    Args:
        inputs: (B, Q, C) logits.
        targets: (B, Q, C) of 0 and 1.
        num_boxes: number of objects to divide by.
        alpha: weight of the positives; below 0 for no weighting.
        gamma: exponent that weighs down easy cases.

    Returns:
        A scalar: the sum over images and classes of the means over the Q queries, by ``num_boxes``.
    """
    return _focal_losses(inputs, targets, alpha, gamma).mean(1).sum() / num_boxes


def _focal_losses(inputs: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return binary_focal_loss(losses, inputs.sigmoid(), targets, alpha, gamma)


def pair_up(indices: Indices, side: int) -> tuple[Tensor, Tensor]:
    """Flatten matches for indexing a (B, ...) tensor.

    Args:
        indices: for each image the indices of predictions and of objects.
        side: 0 for the predictions, 1 for the objects.

    Returns:
        Image number and index of each pair, all images one after the other.
    """
    image = [torch.full_like(match[side], i) for i, match in enumerate(indices)]
    return torch.cat(image), torch.cat([match[side] for match in indices])


def count_boxes(targets: Targets) -> float:
    """Count the objects of a batch, at least 1 on all processes together, as a mean over them.

    A collective call: every process makes it once a step, whatever its targets. With that mean the
    gradients that processes average are those of one process with all their images. (The original
    raises each process's mean to 1, which weakens steps with fewer objects than processes.)
    """
    counts = exchange(sum(len(target["labels"]) for target in targets))
    return max(sum(counts), 1) / len(counts)


class SetCriterion(nn.Module):
    """Classification and box losses of matched predictions (DETR, arXiv:2005.12872, sect. 3.1).

    Args:
        num_classes: number of classes, background not counted.
        matcher: called with outputs and targets, returns a pair of index tensors per image.
        weight_dict: weights of the losses by name, for whoever sums them up; not applied here.
        losses: which losses to compute: ``class``, ``boxes``.
        eos_coef: weight of the background class in ``ce_loss``; None stands for 0.1.
        loss_class_type: ``focal_loss`` for sigmoid outputs of ``num_classes`` logits, ``ce_loss``
            for softmax outputs with one more for background.
        alpha: weight of the positives in the focal loss.
        gamma: exponent of the focal loss.

    Attributes:
        loss_terms: the losses that each entry of ``losses`` gives; a subclass with others adds
            them, computes those of ``masks`` in ``loss_masks``, for example, with arguments and
            result as of `loss_boxes`, and may then have weights for them.

    Raises:
        ValueError: when a loss or the kind of classification loss is unknown.
        ConfigError: when a weight has the name of no loss; any suffix will do, also that of a layer
            that a model does not have.
    """

    empty_weight: Tensor
    loss_terms: ClassVar[Mapping[str, Sequence[str]]] = {
        "class": ("loss_class",),
        "boxes": ("loss_bbox", "loss_giou"),
    }

    def __init__(
        self,
        num_classes: int,
        matcher: Callable[..., Indices],
        weight_dict: Mapping[str, float],
        losses: Sequence[str] = ("class", "boxes"),
        eos_coef: float | None = 0.1,
        loss_class_type: str = "focal_loss",
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        if loss_class_type not in _CLASS_LOSSES:
            raise ValueError(
                f"loss_class_type must be {' or '.join(map(repr, _CLASS_LOSSES))}, got "
                f"{loss_class_type!r}."
            )
        self.num_classes = num_classes
        self.matcher = matcher
        known = [term for terms in self.loss_terms.values() for term in terms]
        self.weight_dict = check_weights(weight_dict, known)
        self.losses = list(losses)
        for loss in self.losses:
            self._loss_function(loss)
        self.alpha = alpha
        self.gamma = gamma
        self.eos_coef = _DEFAULT_EOS_COEF if eos_coef is None else eos_coef
        self.loss_class_type = loss_class_type
        if loss_class_type == "ce_loss":
            empty_weight = torch.ones(num_classes + 1)
            empty_weight[-1] = self.eos_coef
            self.register_buffer("empty_weight", empty_weight)

    def loss_labels(
        self,
        outputs: Mapping[str, Tensor],
        targets: Targets,
        indices: Indices,
        num_boxes: float | Tensor,
    ) -> Losses:
        """Compute ``loss_class`` of one layer; arguments as in `get_loss`."""
        return _first(self._class_losses(Stack([outputs], targets, [indices]), num_boxes))

    def loss_boxes(
        self,
        outputs: Mapping[str, Tensor],
        targets: Targets,
        indices: Indices,
        num_boxes: float | Tensor,
    ) -> Losses:
        """Compute ``loss_bbox`` (L1) and ``loss_giou`` of one layer; arguments as in `get_loss`."""
        return _first(self._box_losses(Stack([outputs], targets, [indices]), num_boxes))

    def _class_losses(self, stack: Stack, num_boxes: float | Tensor) -> Losses:
        """Classification losses of stacked layers, (L,) each."""
        logits = stack.predictions("pred_logits")
        classes = stack.classes(self.num_classes)
        if self.loss_class_type == "ce_loss":
            weight = self.empty_weight.to(logits.dtype)
            losses = F.cross_entropy(
                logits.flatten(0, 2), classes.flatten(), weight, reduction="none"
            )
            weights = weight[classes].flatten(1).sum(1)
            return {"loss_class": losses.view(len(logits), -1).sum(1) / weights}
        one_hot = logits.new_zeros(*logits.shape[:-1], logits.shape[-1] + 1)
        one_hot = one_hot.scatter_(-1, classes.unsqueeze(-1), 1.0)[..., :-1]
        losses = _focal_losses(logits, one_hot, self.alpha, self.gamma)
        return {"loss_class": losses.flatten(1).sum(1) / num_boxes}

    def _box_losses(self, stack: Stack, num_boxes: float | Tensor) -> Losses:
        """Box losses of stacked layers, (L,) each."""
        boxes, truth = stack.matched_boxes()
        giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(truth))
        distance = F.l1_loss(boxes, truth, reduction="none").sum(1)
        return {
            "loss_bbox": stack.sums(distance) / num_boxes,
            "loss_giou": stack.sums(1 - giou) / num_boxes,
        }

    def _get_src_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return pair_up(indices, 0)

    def _get_tgt_permutation_idx(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return pair_up(indices, 1)

    def _loss_function(self, loss: str) -> Callable[..., Losses]:
        if loss not in self.loss_terms:
            raise ValueError(
                f"There is no loss {loss!r}; losses must be out of "
                f"{', '.join(map(repr, self.loss_terms))}.{did_you_mean(loss, self.loss_terms)}"
            )
        return getattr(self, "loss_labels" if loss == "class" else f"loss_{loss}")

    def get_loss(
        self,
        loss: str,
        outputs: Mapping[str, Tensor],
        targets: Targets,
        indices: Indices,
        num_boxes: float | Tensor,
        **kwargs: Any,
    ) -> Losses:
        """Compute one kind of loss of one layer.

        Args:
            loss: ``class`` or ``boxes``.
            outputs: ``pred_logits`` (B, Q, C) and ``pred_boxes`` (B, Q, 4), ``cxcywh`` as shares of
                the image.
            targets: ``labels`` (T,) and ``boxes`` (T, 4) of each image.
            indices: the matcher's result.
            num_boxes: number of objects to divide by.
            **kwargs: passed to the loss.

        Returns:
            Scalar losses by name.

        Raises:
            ValueError: when the loss is unknown.
        """
        return self._loss_function(loss)(outputs, targets, indices, num_boxes, **kwargs)

    def layer_losses(
        self,
        outputs: Mapping[str, Tensor],
        targets: Targets,
        indices: Indices,
        num_boxes: float | Tensor,
        suffix: str = "",
    ) -> Losses:
        """Compute all losses of one layer, ``suffix`` added to their names."""
        losses: Losses = {}
        for loss in self.losses:
            terms = self.get_loss(loss, outputs, targets, indices, num_boxes)
            losses.update({name + suffix: term for name, term in terms.items()})
        return losses

    def forward(
        self, outputs: Mapping[str, Any], targets: Targets, return_indices: bool = False
    ) -> Any:
        """Match and score the last layer, then each of ``aux_outputs``.

        Args:
            outputs: ``pred_logits`` (B, Q, C), ``pred_boxes`` (B, Q, 4) and, for the layers before
                the last, ``aux_outputs``: a list of such dicts.
            targets: for each image ``labels`` (T,) int64 and ``boxes`` (T, 4), ``cxcywh`` as shares
                of the image; T may be 0.
            return_indices: whether to return the matches too.

        Returns:
            Scalar losses ``loss_class``, ``loss_bbox``, ``loss_giou``, those of layer i with suffix
            ``_{i}``. With ``return_indices`` a pair of that and a list of matches: each auxiliary
            layer's, then the last layer's.
        """
        losses, matches = self.match_and_score(outputs, targets, count_boxes(targets))
        if return_indices:
            last = 1 + len(outputs.get("aux_outputs", ()))
            return losses, [*matches[1:last], matches[0]]
        return losses

    def layers(self, outputs: Mapping[str, Any], targets: Targets) -> list[Layer]:
        """List what is matched and scored: the last layer, then each of ``aux_outputs``."""
        before = outputs.get("aux_outputs", ())
        return [
            Layer(outputs, targets),
            *(Layer(layer, targets, f"_{i}") for i, layer in enumerate(before)),
        ]

    def match_and_score(
        self, outputs: Mapping[str, Any], targets: Targets, num_boxes: float
    ) -> tuple[Losses, list[Indices]]:
        """Match all of `layers` together, then score them together.

        Args:
            outputs: as in `forward`.
            targets: as in `forward`.
            num_boxes: number of objects to divide by.

        Returns:
            The losses of all layers, and the matches of each.
        """
        layers = self.layers(outputs, targets)
        matches = match_together(self.matcher, [(layer.outputs, layer.targets) for layer in layers])
        return self.score_layers(layers, matches, num_boxes), matches

    def score_layers(
        self, layers: Sequence[Layer], matches: Sequence[Indices], num_boxes: float | Tensor
    ) -> Losses:
        """Score layers, those that are alike in one pass.

        A subclass that replaces `layer_losses`, `get_loss` or a method that computes losses, or has
        losses of its own, gets a call of `layer_losses` for each layer.

        Args:
            layers: what is scored.
            matches: of each layer, a pair of index tensors per image.
            num_boxes: number of objects to divide by.

        Returns:
            The losses by name and suffix, layer by layer.
        """
        by_layer: list[Losses] = [{} for _ in layers]
        if self._is_extended():
            for i, (layer, indices) in enumerate(zip(layers, matches, strict=True)):
                scored = (layer.outputs, layer.targets, indices, num_boxes, layer.suffix)
                by_layer[i] = self.layer_losses(*scored)
        else:
            for group in alike(layer.kind for layer in layers):
                outputs, targets = [layers[i].outputs for i in group], layers[group[0]].targets
                stack = Stack(outputs, targets, [matches[i] for i in group])
                for name, values in self._stacked_losses(stack, num_boxes).items():
                    for i, value in zip(group, values.unbind(), strict=True):
                        by_layer[i][name + layers[i].suffix] = value
        return {name: value for losses in by_layer for name, value in losses.items()}

    def _stacked_losses(self, stack: Stack, num_boxes: float | Tensor) -> Losses:
        losses: Losses = {}
        for loss in self.losses:
            compute = self._class_losses if loss == "class" else self._box_losses
            losses.update(compute(stack, num_boxes))
        return losses

    def _is_extended(self) -> bool:
        """Whether a layer's losses are computed by methods that are not those of this class."""
        methods = (getattr(getattr(self, name), "__func__", None) for name in _SINGLE_LAYER)
        return not {"class", "boxes"}.issuperset(self.losses) or any(
            method is not own for method, own in zip(methods, _SINGLE_LAYER.values(), strict=True)
        )

    def extra_repr(self) -> str:
        """Describe the settings; the matcher is printed as a submodule."""
        return (
            f"num_classes={self.num_classes}, losses={self.losses}, "
            f"loss_class_type={self.loss_class_type!r}, alpha={self.alpha}, gamma={self.gamma}, "
            f"eos_coef={self.eos_coef}, weight_dict={self.weight_dict}"
        )


_SINGLE_LAYER = {
    name: getattr(SetCriterion, name)
    for name in ("layer_losses", "get_loss", "loss_labels", "loss_boxes")
}


def _first(losses: Losses) -> Losses:
    return {name: values[0] for name, values in losses.items()}
