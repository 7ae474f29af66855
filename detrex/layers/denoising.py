"""Denoising queries: noised objects that a decoder learns to give back (arXiv:2203.01305)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.utils.misc import inverse_sigmoid


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
    chosen = (torch.rand_like(labels, dtype=torch.float32) < label_noise_prob).nonzero().flatten()
    return labels.index_put((chosen,), torch.randint_like(chosen, num_classes))


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


class GenerateDNQueries(nn.Module):
    """Make groups of noised copies of all objects of a batch.

    Each group holds every object of an image once, padded to the largest number of objects in the
    batch, and must not be seen by other groups or by the matching queries:

        | group 0 | group 1 | ... | matching queries |

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

    def generate_query_masks(self, max_gt_num_per_image: int, device: torch.device | str) -> Tensor:
        """Hide groups from each other and from the matching queries.

        Args:
            max_gt_num_per_image: queries of a group.
            device: where the mask is needed.

        Returns:
            (p + q, p + q) bool for p denoising and q matching queries, True where the query of the
            row must not see that of the column.
        """
        group = torch.arange(self.denoising_groups, device=device)
        group = group.repeat_interleave(max_gt_num_per_image)
        group = torch.cat([group, group.new_full((self.num_queries,), -1)])
        return (group >= 0) & (group != group[:, None])

    def forward(
        self, gt_labels_list: Sequence[Tensor], gt_boxes_list: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, int, int]:
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
        group_size = max(counts, default=0)
        groups = self.denoising_groups
        labels = apply_label_noise(
            torch.cat(list(gt_labels_list)).repeat(groups), self.label_noise_prob, self.num_classes
        )
        boxes = apply_box_noise(
            torch.cat(list(gt_boxes_list)).repeat(groups, 1), self.box_noise_scale
        )
        content = self.label_encoder(labels)
        if self.with_indicator:
            content = torch.cat([content, torch.ones_like(content[:, :1])], dim=-1)

        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).repeat(groups)
        slot = torch.cat([torch.arange(count) for count in counts])
        slot = (torch.arange(groups)[:, None] * group_size + slot).flatten()
        place = (image.to(labels.device), slot.to(labels.device))

        def spread(queries: Tensor) -> Tensor:
            shape = (len(counts), groups * group_size, queries.shape[-1])
            return queries.new_zeros(shape).index_put(place, queries)

        return (
            spread(content),
            spread(inverse_sigmoid(boxes)),
            self.generate_query_masks(group_size, labels.device),
            groups,
            group_size,
        )
