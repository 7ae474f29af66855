"""Tokens: the levels of a batch in one sequence, and the boxes that lie around each.

Letters in shapes: n images, l levels, s tokens of all levels, d channels, (h, w) a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """All levels of a batch, flattened and joined.

    Attributes:
        content: (n, s, d).
        position: (n, s, d) position and level embedding.
        padding: (n, s) bool, True = padding.
        shapes: (h, w) of each level.
        valid_shapes: (n, l, 2) height and width of each level that is image.
    """

    content: Tensor
    position: Tensor
    padding: Tensor
    shapes: list[tuple[int, int]]
    valid_shapes: Tensor

    @classmethod
    def flatten(
        cls,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        positions: Sequence[Tensor],
        level_embeds: Tensor,
    ) -> "Tokens":
        """Join (n, d, h, w) features, (n, h, w) masks and (n, d, h, w) position embeddings."""
        content = torch.cat([feature.flatten(2).transpose(1, 2) for feature in features], 1)
        position = torch.cat(
            [
                position.flatten(2).transpose(1, 2) + level
                for position, level in zip(positions, level_embeds, strict=True)
            ],
            1,
        )
        valid = [
            torch.stack([(~mask[:, :, 0]).sum(1), (~mask[:, 0, :]).sum(1)], -1) for mask in masks
        ]
        return cls(
            content=content,
            position=position.to(content.dtype),
            padding=torch.cat([mask.flatten(1) for mask in masks], 1),
            shapes=[(int(mask.shape[1]), int(mask.shape[2])) for mask in masks],
            valid_shapes=torch.stack(valid, 1),
        )

    @property
    def valid_ratios(self) -> Tensor:
        """The share (n, l, 2) of each level's width and height that is image."""
        shapes = self.valid_shapes.new_tensor(self.shapes)
        return (self.valid_shapes / shapes).flip(-1)

    def centers(self) -> Tensor:
        """The centres (n, s, 2), x and y, of all tokens; 0..1 is image, more is padding."""
        centers = []
        for (h, w), valid_hw in zip(self.shapes, self.valid_shapes.unbind(1), strict=True):
            y = torch.arange(h, device=valid_hw.device) + 0.5
            x = torch.arange(w, device=valid_hw.device) + 0.5
            grid = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1)
            centers.append(grid.flatten(0, 1) / valid_hw.flip(-1)[:, None])
        return torch.cat(centers, 1)


def encoder_proposals(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Propose one box per token, with a side of 0.05 of the image, doubled with each level.

    Returns:
        The cxcywh boxes (n, s, 4) before the sigmoid, and (n, s) bool, True where every coordinate
        is inside 0.01..0.99. The others are +inf, so that no loss can pull at them.
    """
    centers = tokens.centers()
    side = torch.cat(
        [centers.new_full((h * w,), 0.05 * 2**lvl) for lvl, (h, w) in enumerate(tokens.shapes)]
    )
    boxes = torch.cat([centers, side[None, :, None].expand(len(centers), -1, 2)], -1)
    inside = ((boxes > 0.01) & (boxes < 0.99)).all(-1) & ~tokens.padding
    return torch.logit(boxes).masked_fill(~inside[..., None], float("inf")), inside
