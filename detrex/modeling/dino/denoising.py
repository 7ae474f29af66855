"""Contrastive denoising queries (arXiv:2203.03605, section 3.3).

Each group holds every object of an image twice: a positive query near the object's box, which
should give the object back, and a negative one further off, which should give "no object". Queries
are laid out group by group, first the positive half and then the negative, each half
``max_objects`` long:

    | group 0: positive | group 0: negative | group 1: positive | ... | matching queries |

Letters in shapes: n images, p denoising queries, q matching queries, d channels, m objects of all
images together, r = copies of each object (two per group).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detrex.layers import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh
from detrex.utils import inverse_sigmoid


@dataclass(frozen=True)
class DenoisingQueries:
    """Queries that are put before the matching queries in training.

    Attributes:
        content: (n, p, d) label embeddings, zero where an image has fewer objects than the largest.
        boxes_unact: (n, p, 4) noised cxcywh boxes before the sigmoid, zero at the same places.
        attention_mask: (p + q, p + q) bool, True where the query of the row must not see the
            column.
        num_groups: groups of positive and negative queries.
        group_size: queries of a group, its two halves together.
    """

    content: Tensor
    boxes_unact: Tensor
    attention_mask: Tensor
    num_groups: int
    group_size: int

    @property
    def num_queries(self) -> int:
        """The number p of denoising queries."""
        return self.num_groups * self.group_size

    @property
    def query_embed(self) -> tuple[Tensor, Tensor]:
        """Content and boxes before the sigmoid, as the transformer takes them."""
        return self.content, self.boxes_unact

    @property
    def attn_masks(self) -> list[Tensor | None]:
        """The masks of the decoder's self- and cross-attention."""
        return [self.attention_mask, None]

    def metas(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Describe the decoder's ``outputs`` for these queries as ``DINOCriterion`` takes them."""
        return {
            "single_padding": self.group_size,
            "dn_num": self.num_groups,
            "output_known_lbs_bboxes": outputs,
        }


def flip_labels(labels: Tensor, probability: float, num_classes: int) -> Tensor:
    """Replace each label with the given probability by one drawn uniformly from all classes."""
    if probability <= 0:
        return labels
    chosen = (torch.rand_like(labels, dtype=torch.float32) < probability).nonzero().flatten()
    return labels.index_put((chosen,), torch.randint_like(chosen, num_classes))


def shift_corners(boxes_cxcywh_norm: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Move each corner coordinate by a random share of half the box's width or height.

    Args:
        boxes_cxcywh_norm: (..., 4) boxes, 0..1.
        negative: (...) bool; shares are drawn from 0..1 for positive, 1..2 for negative boxes.
        scale: factor on all shares, ``box_noise_scale``.

    Returns:
        (..., 4) cxcywh boxes with corners inside 0..1. The width or height of a negative box may be
        negative, where its corners have passed each other.
    """
    if scale <= 0:
        return boxes_cxcywh_norm
    half = boxes_cxcywh_norm[..., [2, 3, 2, 3]] / 2
    sign = torch.randint_like(half, 2) * 2 - 1
    share = (torch.rand_like(half) + negative[..., None]) * sign
    corners = box_cxcywh_to_xyxy(boxes_cxcywh_norm) + share * half * scale
    return box_xyxy_to_cxcywh(corners.clamp(0, 1))


def attention_mask(
    num_groups: int, group_size: int, num_queries: int, device: torch.device | str
) -> Tensor:
    """Hide denoising queries from matching queries and from the queries of other groups.

    Returns:
        (p + q, p + q) bool, True = hidden; p = ``num_groups * group_size``, q = ``num_queries``.
    """
    group = torch.arange(num_groups, device=device).repeat_interleave(group_size)
    group = torch.cat([group, group.new_full((num_queries,), -1)])
    return (group[None, :] >= 0) & (group[None, :] != group[:, None])


def denoising_queries(
    targets: Sequence[Mapping[str, Tensor]],
    label_embedding: nn.Embedding,
    *,
    dn_number: int,
    num_queries: int,
    label_noise_ratio: float = 0.2,
    box_noise_scale: float = 1.0,
) -> DenoisingQueries | None:
    """Make the contrastive denoising queries of a batch.

    Args:
        targets: for each image ``"labels"`` (m_i,) and ``"boxes"`` (m_i, 4), cxcywh in 0..1.
        label_embedding: num_classes x d.
        dn_number: positive queries to aim for; there are ``max(1, dn_number // max_objects)``
            groups.
        num_queries: the number of matching queries that follow.
        label_noise_ratio: half of it is the probability that a label is drawn anew.
        box_noise_scale: see :func:`shift_corners`.

    Returns:
        The queries on the targets' device, or None when ``dn_number`` is not positive or no image
        has an object.
    """
    counts = [len(target["labels"]) for target in targets]
    max_objects = max(counts, default=0)
    if dn_number <= 0 or max_objects == 0:
        return None
    num_groups = max(1, dn_number // max_objects)
    copies = 2 * num_groups

    labels_m = torch.cat([target["labels"] for target in targets])
    boxes_m4 = torch.cat([target["boxes"] for target in targets])
    negative_rm = (torch.arange(copies, device=labels_m.device) % 2 == 1)[:, None].expand(
        -1, len(labels_m)
    )
    labels = flip_labels(
        labels_m.repeat(copies), label_noise_ratio * 0.5, label_embedding.num_embeddings
    )
    boxes = shift_corners(boxes_m4.repeat(copies, 1), negative_rm.flatten(), box_noise_scale)

    image_m = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    slot_m = torch.cat([torch.arange(count) for count in counts])
    slot_rm = torch.arange(copies)[:, None] * max_objects + slot_m
    place = (image_m.repeat(copies).to(labels.device), slot_rm.flatten().to(labels.device))

    embedded = label_embedding(labels)
    shape = (len(targets), copies * max_objects)
    return DenoisingQueries(
        content=embedded.new_zeros(*shape, embedded.shape[-1]).index_put(place, embedded),
        boxes_unact=boxes.new_zeros(*shape, 4).index_put(place, inverse_sigmoid(boxes)),
        attention_mask=attention_mask(num_groups, 2 * max_objects, num_queries, labels.device),
        num_groups=num_groups,
        group_size=2 * max_objects,
    )
