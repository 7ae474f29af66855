"""Contrastive denoising queries (arXiv:2203.03605, section 3.3).

Each group holds every object of an image twice: a positive query near the object's box, which
should give the object back, and a negative one further off, which should give "no object". Queries
are laid out group by group, first the positive half and then the negative, each half
``max_objects`` long:

    | group 0: positive | group 0: negative | group 1: positive | ... | matching queries |

Letters in shapes: n images, p denoising queries, q denoising and matching queries together, d
channels, m objects of all images together, r = copies of each object (two per group).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detrex.layers.denoising import (
    apply_contrastive_box_noise,
    apply_label_noise,
    denoising_attention_mask,
    spread_over_images,
)
from detrex.utils import inverse_sigmoid
from detrex.utils.dist import exchange


@dataclass(frozen=True)
class DenoisingQueries:
    """Queries that are put before the matching queries in training.

    Attributes:
        content: (n, p, d) label embeddings, zero where an image has fewer objects than the largest.
        boxes_unact: (n, p, 4) noised cxcywh boxes before the sigmoid, zero at the same places.
        attention_mask: (q, q) bool, True where the query of the row must not see the column.
        num_groups: groups of positive and negative queries.
        group_size: queries of a group, its two halves together.
    """

    content: Float[Tensor, "n p d"]
    boxes_unact: Float[Tensor, "n p 4"]
    attention_mask: Bool[Tensor, "q q"]
    num_groups: int
    group_size: int

    @property
    def num_queries(self) -> int:
        """The number p of denoising queries."""
        return self.num_groups * self.group_size

    @property
    def query_embed(self) -> tuple[Float[Tensor, "n p d"], Float[Tensor, "n p 4"]]:
        """Content and boxes before the sigmoid, as the transformer takes them."""
        return self.content, self.boxes_unact

    @property
    def attn_masks(self) -> list[Bool[Tensor, "q q"] | None]:
        """The masks of the decoder's self- and cross-attention."""
        return [self.attention_mask, None]

    def metas(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Describe the decoder's ``outputs`` for these queries as ``DINOCriterion`` takes them."""
        return {
            "single_padding": self.group_size,
            "dn_num": self.num_groups,
            "output_known_lbs_bboxes": outputs,
        }


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

    With a positive ``dn_number`` this is a collective call. A process whose images hold no object
    lays its queries out, all of them zero, for as many objects as an image of the others has: like
    an image without objects in a batch with others, it learns to say "no object".

    Args:
        targets: for each image ``"labels"`` (m_i,) and ``"boxes"`` (m_i, 4), cxcywh in 0..1.
        label_embedding: num_classes x d.
        dn_number: positive queries to aim for; there are ``max(1, dn_number // max_objects)``
            groups.
        num_queries: the number of matching queries that follow.
        label_noise_ratio: half of it is the probability that a label is drawn anew.
        box_noise_scale: see :func:`~detrex.layers.denoising.apply_contrastive_box_noise`.

    Returns:
        The queries on the targets' device, or None when ``dn_number`` is not positive or no image
        of any process has an object.
    """
    if dn_number <= 0:
        return None
    counts = [len(target["labels"]) for target in targets]
    own_max = max(counts, default=0)
    max_of_ranks = max(exchange(own_max))
    max_objects = own_max or max_of_ranks
    if max_objects == 0:
        return None
    num_groups = max(1, dn_number // max_objects)
    copies = 2 * num_groups

    labels_m = torch.cat([target["labels"] for target in targets])
    boxes_m4 = torch.cat([target["boxes"] for target in targets])
    negative_rm = (torch.arange(copies, device=labels_m.device) % 2 == 1)[:, None].expand(
        -1, len(labels_m)
    )
    labels = apply_label_noise(
        labels_m.repeat(copies), label_noise_ratio * 0.5, label_embedding.num_embeddings
    )
    boxes = apply_contrastive_box_noise(
        boxes_m4.repeat(copies, 1), negative_rm.flatten(), box_noise_scale
    )
    return DenoisingQueries(
        content=spread_over_images(label_embedding(labels), counts, copies, max_objects),
        boxes_unact=spread_over_images(inverse_sigmoid(boxes), counts, copies, max_objects),
        attention_mask=denoising_attention_mask(
            num_groups, 2 * max_objects, num_queries, labels.device
        ),
        num_groups=num_groups,
        group_size=2 * max_objects,
    )
