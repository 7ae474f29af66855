"""The losses of the decoder's layers, the encoder and the denoising queries (arXiv:2203.03605)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from detrex.modeling.criterion import TwoStageCriterion
from detrex.modeling.criterion.criterion import Losses, count_boxes
from detrex.modeling.criterion.stack import Layer, Targets
from detrex.modeling.criterion.weights import loss_terms
from detrex.modeling.matcher.assignment import Indices


def expand_weight_dict(weight_dict: Mapping[str, float], num_layers: int) -> dict[str, float]:
    """Give every loss of a detector a weight.

    A loss is named after its term, such as ``loss_bbox``, and where it is taken: ``loss_bbox`` of
    the last decoder layer, ``loss_bbox_{i}`` of layer i before it, ``loss_bbox_enc`` of the
    encoder, and ``loss_bbox_dn`` and ``loss_bbox_dn_{i}`` of the denoising queries.

    Args:
        weight_dict: weights by name, at least those of the terms themselves.
        num_layers: decoder layers.

    Returns:
        The weights given, and for every other loss of each term the weight of ``{term}_dn`` for
        ``{term}_dn_{i}`` where there is one, else the weight of the term.
    """
    expanded = dict(weight_dict)
    for term in loss_terms(weight_dict):
        weight = weight_dict[term]
        expanded.setdefault(f"{term}_enc", weight)
        denoising_weight = expanded.setdefault(f"{term}_dn", weight)
        for layer in range(num_layers - 1):
            expanded.setdefault(f"{term}_{layer}", weight)
            expanded.setdefault(f"{term}_dn_{layer}", denoising_weight)
    return expanded


def denoising_matches(targets: Targets, num_groups: int, group_size: int) -> Indices:
    """Match the positive denoising queries of every group with the objects they were made of.

    Args:
        targets: ``labels`` (m_i,) of each image.
        num_groups: groups of denoising queries.
        group_size: queries of a group; the first m_i are the positive ones of image i.

    Returns:
        For each image the indices of queries and objects, ``num_groups * m_i`` each, on the CPU.
    """
    first = torch.arange(num_groups)[:, None] * group_size
    matches = []
    for target in targets:
        objects = torch.arange(len(target["labels"]))
        matches.append(((first + objects).flatten(), objects.repeat(num_groups)))
    return matches


class DINOCriterion(TwoStageCriterion):
    """``TwoStageCriterion`` plus the losses of the denoising queries, whose matches are known.

    The arguments are those of ``TwoStageCriterion``.
    """

    def forward(  # type: ignore[override]
        self,
        outputs: Mapping[str, Any],
        targets: Targets,
        dn_metas: Mapping[str, Any] | None = None,
    ) -> Losses:
        """Score matching and denoising queries.

        Args:
            outputs: ``pred_logits`` (n, q, c), ``pred_boxes`` (n, q, 4), ``aux_outputs`` and
                ``enc_outputs``, as ``TwoStageCriterion`` takes them.
            targets: for each image ``labels`` (m_i,) and ``boxes`` (m_i, 4), cxcywh in 0..1.
            dn_metas: ``output_known_lbs_bboxes``, outputs like ``outputs`` for the denoising
                queries; ``dn_num``, their groups; ``single_padding``, queries of a group. None
                without any.

        Returns:
            The losses of ``TwoStageCriterion``, and those of the denoising queries with the suffix
            ``_dn`` for the last layer and ``_dn_{i}`` for layer i of ``aux_outputs``. The latter
            are there in every step, 0 without denoising queries.
        """
        num_boxes = count_boxes(targets)
        losses, _ = self.match_and_score(outputs, targets, num_boxes)
        terms = loss_terms(losses)
        losses.update(self.denoising_losses(outputs, targets, dn_metas, terms, num_boxes))
        return losses

    def denoising_losses(
        self,
        outputs: Mapping[str, Any],
        targets: Targets,
        dn_metas: Mapping[str, Any] | None,
        terms: Iterable[str],
        num_boxes: float,
    ) -> Losses:
        """Score the denoising queries.

        Args:
            outputs: as in ``forward``.
            targets: as in ``forward``.
            dn_metas: as in ``forward``.
            terms: names of the losses without suffix.
            num_boxes: number of objects of the step; each is counted once per group.

        Returns:
            The losses with suffix ``_dn`` and ``_dn_{i}``.
        """
        suffixes = ["_dn", *(f"_dn_{i}" for i in range(len(outputs.get("aux_outputs", ()))))]
        known = (dn_metas or {}).get("output_known_lbs_bboxes")
        if dn_metas is None or known is None:
            zero = outputs["pred_logits"].new_zeros(())
            return {term + suffix: zero for suffix in suffixes for term in terms}
        matches = denoising_matches(targets, dn_metas["dn_num"], dn_metas["single_padding"])
        num_boxes = num_boxes * dn_metas["dn_num"]
        layers = [
            Layer(layer, targets, suffix)
            for layer, suffix in zip([known, *known.get("aux_outputs", ())], suffixes, strict=True)
        ]
        return self.score_layers(layers, [matches] * len(layers), num_boxes)
