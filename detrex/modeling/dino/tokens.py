"""Tokens: the levels of a batch in one sequence, where each lies, and the box proposed there.

Letters in shapes: n images, l levels, s tokens of all levels, d channels, (h, w) a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Some centres are at 0.01 or 0.99 exactly, outside; a runtime that multiplies by the reciprocal
# where PyTorch divides rounds them to either side. All others are at least 1e-5 away, for levels of
# up to 1000 cells.
_MARGIN = 1e-6


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch lie, whatever they hold.

    Attributes:
        shapes: (h, w) of each level.
        padding: (n, s) bool, True = padding; None where nothing is padded.
        valid_ratios: (n, l, 2) the share of each level's width and height that is image.
        centers: (n, s, 2) x and y of each token; 0..1 is image, more is padding.
        references: (n, s, l, 2) the same place in the padded map of each level.
        proposals: (n, s, 4) one box per token, cxcywh before the sigmoid, with a side of 0.05 of
            the image, doubled with each level; +inf, so that no loss can pull at it, where a
            coordinate is not inside 0.01..0.99.
        inside: (n, s) bool, True where the proposal is finite.
        fewest_tokens: no image has fewer tokens that are no padding.
    """

    shapes: tuple[tuple[int, int], ...]
    padding: Bool[Tensor, "n s"] | None
    valid_ratios: Float[Tensor, "n l 2"]
    centers: Float[Tensor, "n s 2"]
    references: Float[Tensor, "n s l 2"]
    proposals: Float[Tensor, "n s 4"]
    inside: Bool[Tensor, "n s"]
    fewest_tokens: int = 0

    @classmethod
    def of_masks(
        cls, masks: Sequence[Bool[Tensor, "n _ _"]], padded: bool = True, fewest_tokens: int = 0
    ) -> "Layout":
        """Lay out the levels that (n, h, w) bool masks describe, True = padding.

        Args:
            masks: one per level.
            padded: whether one of them may be True somewhere.
            fewest_tokens: see the attributes.
        """
        shapes = tuple((mask.shape[1], mask.shape[2]) for mask in masks)
        centers, ratios, sides = [], [], []
        for level, (mask, (h, w)) in enumerate(zip(masks, shapes, strict=True)):
            valid_wh = torch.stack([(~mask[:, 0, :]).sum(1), (~mask[:, :, 0]).sum(1)], -1)
            y = torch.arange(h, device=mask.device) + 0.5
            x = torch.arange(w, device=mask.device) + 0.5
            grid = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1).flatten(0, 1)
            centers.append(grid / valid_wh[:, None])
            ratios.append(torch.stack([valid_wh[:, 0] / w, valid_wh[:, 1] / h], -1))
            sides.append(grid.new_full((h * w,), 0.05 * 2**level))
        centers_ns2, ratios_nl2 = torch.cat(centers, 1), torch.stack(ratios, 1)
        sides_ns2 = torch.cat(sides)[None, :, None].expand(len(centers_ns2), -1, 2)
        boxes = torch.cat([centers_ns2, sides_ns2], -1)
        inside = ((boxes > 0.01 + _MARGIN) & (boxes < 0.99 - _MARGIN)).all(-1)
        padding = torch.cat([mask.flatten(1) for mask in masks], 1) if padded else None
        if padding is not None:
            inside = inside & ~padding
        return cls(
            shapes=shapes,
            padding=padding,
            valid_ratios=ratios_nl2,
            centers=centers_ns2,
            references=centers_ns2[:, :, None] * ratios_nl2[:, None],
            proposals=torch.logit(boxes).masked_fill(~inside[..., None], float("inf")),
            inside=inside,
            fewest_tokens=fewest_tokens,
        )

    def for_images(self, count: int) -> "Layout":
        """Repeat the layout of one image for `count` images that have the same, without a copy."""
        if len(self.centers) == count:
            return self
        tensors = {
            name: value.expand(count, *value.shape[1:])
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return Layout(**{**vars(self), **tensors})


def flatten_levels(maps: Sequence[Float[Tensor, "n d _ _"]]) -> Float[Tensor, "n s d"]:
    """Join (n, d, h, w) maps as (n, s, d) tokens."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
