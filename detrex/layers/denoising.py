"""Denoising queries: noised objects that a decoder learns to give back.

Plain ones are those of DN-DETR (arXiv:2203.01305), contrastive ones those of DINO
(arXiv:2203.03605). The queries of a batch are laid out in groups, each padded to the same size,
before the matching ones:

    | group 0 | group 1 | ... | matching queries |
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detrex.utils.misc import inverse_sigmoid

from .box_ops import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh


def apply_label_noise(
    labels: Tensor, label_noise_prob: float = 0.2, num_classes: int = 80
) -> Tensor:
    """Draw some labels anew.

    Args:
        labels: (n,) int64 classes; left as they are.
        label_noise_prob: probability that a label is replaced by one drawn uniformly from all.
        num_classes: number of classes.

    Returns:
        (n,) noised classes.
    """
    if label_noise_prob <= 0:
        return labels
    chosen = torch.rand_like(labels, dtype=torch.float32) < label_noise_prob
    # A class is drawn for each chosen label, in their order. How many there are is not read back
    # from a GPU, whose generator draws the first ones of many as it draws few.
    count = len(labels) if labels.is_cuda else int(chosen.sum())
    drawn = torch.randint_like(labels[:count], num_classes)
    return torch.where(chosen, drawn[(chosen.cumsum(0) - 1).clamp(0)], labels) if count else labels


def apply_box_noise(boxes: Tensor, box_noise_scale: float = 0.4) -> Tensor:
    """Move and resize boxes at random.

    Args:
        boxes: (n, 4) boxes, ``cxcywh`` as shares of the image; left as they are.
        box_noise_scale: the largest move, in halves of the box, and the largest change of its size,
            as a share of it.

    Returns:
        (n, 4) noised boxes, each number clamped to [0, 1].
    """
    if box_noise_scale <= 0:
        return boxes
    reach = torch.cat([boxes[..., 2:] / 2, boxes[..., 2:]], dim=-1)
    noise = torch.rand_like(boxes) * 2 - 1
    return (boxes + noise * reach * box_noise_scale).clamp(0, 1)


def apply_contrastive_box_noise(
    boxes: Float[Tensor, "*n 4"], negative: Bool[Tensor, "*n"], box_noise_scale: float = 1.0
) -> Float[Tensor, "*n 4"]:
    """Move each corner coordinate by a random share of half the box's width or height.

    Args:
        boxes: (..., 4) boxes, ``cxcywh`` as shares of the image; left as they are.
        negative: (...) bool; shares are drawn from [0, 1) for positive, [1, 2) for negative boxes.
        box_noise_scale: factor on all shares.

    Returns:
        (..., 4) ``cxcywh`` boxes with corners in [0, 1]. The width or height of a negative box may
        be negative, where its corners have passed each other.
    """
    if box_noise_scale <= 0:
        return boxes
    half = torch.cat([boxes[..., 2:], boxes[..., 2:]], dim=-1) / 2
    sign = torch.randint_like(half, 2) * 2 - 1
    share = (torch.rand_like(half) + negative[..., None]) * sign
    corners = box_cxcywh_to_xyxy(boxes) + share * half * box_noise_scale
    return box_xyxy_to_cxcywh(corners.clamp(0, 1))


def denoising_attention_mask(
    num_groups: int, group_size: int, num_queries: int, device: torch.device | str
) -> Bool[Tensor, "q q"]:
    """Hide denoising queries from matching queries and from the queries of other groups.

    Args:
        num_groups: number of groups.
        group_size: queries of a group.
        num_queries: matching queries.
        device: where the mask is needed.

    Returns:
        (q, q) bool for all queries, the denoising ones first, True where the query of the row must
        not see that of the column.
    """
    group = torch.arange(num_groups, device=device).repeat_interleave(group_size)
    group = torch.cat([group, group.new_full((num_queries,), -1)])
    return (group >= 0) & (group != group[:, None])


def spread_over_images(
    queries: Float[Tensor, "_ c"], counts: Sequence[int], copies: int, slots: int | None = None
) -> Float[Tensor, "b p c"]:
    """Give each object's queries their place in the batch.

    Args:
        queries: (copies * m, C) queries: all objects of all images, then all of them again, ...
        counts: number of objects of each image, m in total.
        copies: number of queries of each object.
        slots: queries of an image and copy, at least ``max(counts)``; that number by default.

    Returns:
        (B, copies * slots, C) queries, zero where an image has fewer objects than ``slots``.
    """
    largest = max(counts, default=0) if slots is None else slots
    taken = torch.arange(largest) < torch.tensor(counts)[:, None, None]
    place = taken.expand(-1, copies, -1).transpose(0, 1).nonzero()
    copy, image, slot = place.to(queries.device, non_blocking=queries.is_cuda).unbind(1)
    shape = (len(counts), copies, largest, queries.shape[-1])
    return queries.new_zeros(shape).index_put((image, copy, slot), queries).flatten(1, 2)


class GenerateDNQueries(nn.Module):
    """Make groups of noised copies of all objects of a batch; each group holds every object once.

    Args:
        num_queries: number of matching queries that follow.
        num_classes: number of classes.
        label_embed_dim: width of the label embedding.
        denoising_groups: number of groups.
        label_noise_prob: see `apply_label_noise`.
        box_noise_scale: see `apply_box_noise`.
        with_indicator: whether the last channel of the embedding is not learnt but 1, which tells
            denoising queries from others.
    """

    def __init__(
        self,
        num_queries: int = 300,
        num_classes: int = 80,
        label_embed_dim: int = 256,
        denoising_groups: int = 5,
        label_noise_prob: float = 0.2,
        box_noise_scale: float = 0.4,
        with_indicator: bool = False,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.num_classes = num_classes
        self.label_embed_dim = label_embed_dim
        self.denoising_groups = denoising_groups
        self.label_noise_prob = label_noise_prob
        self.box_noise_scale = box_noise_scale
        self.with_indicator = with_indicator
        self.label_encoder = nn.Embedding(num_classes, label_embed_dim - int(with_indicator))

    def generate_query_masks(
        self, max_gt_num_per_image: int, device: torch.device | str
    ) -> Bool[Tensor, "q q"]:
        """Make the attention mask of groups of that size; see `denoising_attention_mask`."""
        return denoising_attention_mask(
            self.denoising_groups, max_gt_num_per_image, self.num_queries, device
        )

    def forward(
        self,
        gt_labels_list: Sequence[Int[Tensor, " _"]],
        gt_boxes_list: Sequence[Float[Tensor, "_ 4"]],
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b p 4"], Bool[Tensor, "q q"], int, int]:
        """Make the queries of a batch.

        Args:
            gt_labels_list: (m_i,) int64 classes of each image; m_i may be 0.
            gt_boxes_list: (m_i, 4) boxes of each image, ``cxcywh`` as shares of the image.

        Returns:
            Label embeddings (B, p, label_embed_dim), boxes (B, p, 4) before the sigmoid, both zero
            where an image has fewer objects than the largest; the attention mask; the number of
            groups; the number of queries of a group.
        """
        counts = [len(labels) for labels in gt_labels_list]
        groups = self.denoising_groups
        labels = torch.cat(list(gt_labels_list)).repeat(groups)
        labels = apply_label_noise(labels, self.label_noise_prob, self.num_classes)
        boxes = torch.cat(list(gt_boxes_list)).repeat(groups, 1)
        boxes = apply_box_noise(boxes, self.box_noise_scale)
        content = self.label_encoder(labels)
        if self.with_indicator:
            content = torch.cat([content, torch.ones_like(content[:, :1])], dim=-1)
        group_size = max(counts, default=0)
        return (
            spread_over_images(content, counts, groups),
            spread_over_images(inverse_sigmoid(boxes), counts, groups),
            self.generate_query_masks(group_size, labels.device),
            groups,
            group_size,
        )


class GenerateCDNQueries(nn.Module):
    """Make groups of contrastive denoising queries.

    Each group holds every object twice: first all positive queries, near the objects' boxes, then
    all negative ones, further off.

    Args:
        num_queries: number of matching queries that follow.
        num_classes: number of classes.
        label_embed_dim: width of the label embedding.
        denoising_nums: number of positive queries to aim for; there are as many groups as fit, at
            least one.
        label_noise_prob: half of it is the probability that a label is drawn anew.
        box_noise_scale: see `apply_contrastive_box_noise`.
    """

    def __init__(
        self,
        num_queries: int = 300,
        num_classes: int = 80,
        label_embed_dim: int = 256,
        denoising_nums: int = 100,
        label_noise_prob: float = 0.5,
        box_noise_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.num_classes = num_classes
        self.label_embed_dim = label_embed_dim
        self.denoising_nums = denoising_nums
        self.label_noise_prob = label_noise_prob
        self.box_noise_scale = box_noise_scale
        self.label_encoder = nn.Embedding(num_classes, label_embed_dim)

    def forward(
        self,
        gt_labels_list: Sequence[Int[Tensor, " _"]],
        gt_boxes_list: Sequence[Float[Tensor, "_ 4"]],
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b p 4"], Bool[Tensor, "q q"], int, int]:
        """Make the queries of a batch; arguments and result as in `GenerateDNQueries.forward`."""
        counts = [len(labels) for labels in gt_labels_list]
        largest = max(counts, default=0)
        groups = max(1, self.denoising_nums // max(largest, 1))
        copies = 2 * groups
        labels = torch.cat(list(gt_labels_list))
        negative = torch.arange(copies, device=labels.device) % 2 == 1
        negative = negative.repeat_interleave(len(labels))
        labels = apply_label_noise(
            labels.repeat(copies), self.label_noise_prob * 0.5, self.num_classes
        )
        boxes = torch.cat(list(gt_boxes_list)).repeat(copies, 1)
        boxes = apply_contrastive_box_noise(boxes, negative, self.box_noise_scale)
        return (
            spread_over_images(self.label_encoder(labels), counts, copies),
            spread_over_images(inverse_sigmoid(boxes), counts, copies),
            denoising_attention_mask(groups, 2 * largest, self.num_queries, labels.device),
            groups,
            2 * largest,
        )
