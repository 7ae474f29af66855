"""How much of each level of a batch is image, in numbers, and what is kept for them.

Sizes are known before any tensor is: what follows from them needs no read-back from the device, and
what an evaluation asks for again with the next image of the same size need not be computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detrex.layers import PositionEmbeddingSine
from detrex.modeling.backbone.features.coverage import Size, ceil_div
from detrex.utils.remembered import remembered

from .tokens import Layout

REMEMBERED_SIZES = 4
"""For how many sizes of images the tensors of an evaluation are kept."""


@dataclass(frozen=True)
class LevelSizes:
    """The sizes of a batch's levels.

    Attributes:
        shapes: (height, width) of each level.
        valid: for each image, height and width of that part of each level which is image; the rest
            is padding.
        padded: whether there is a cell of padding.
    """

    shapes: tuple[Size, ...]
    valid: tuple[tuple[Size, ...], ...]
    padded: bool

    @classmethod
    def of_batch(
        cls, shapes: Sequence[Size], count: int, batch: Size, images: Sequence[Size] | None = None
    ) -> "LevelSizes":
        """Say which cells see padding: those whose upper left corner does.

        Args:
            shapes: (height, width) of each level.
            count: number of images.
            batch: (height, width) of the padded images.
            images: (height, width) of each image; None where each fills the batch.
        """
        whole = tuple(shapes)
        if images is None:
            return cls(whole, (whole,) * count, padded=False)
        valid = tuple(
            tuple(
                (ceil_div(h * rows, batch[0]), ceil_div(w * cols, batch[1])) for rows, cols in whole
            )
            for h, w in images
        )
        return cls(whole, valid, any(sizes != whole for sizes in valid))

    @classmethod
    def merge(cls, parts: Sequence["LevelSizes"], order: Sequence[int]) -> "LevelSizes":
        """Pad the levels of several batches to the largest of each.

        Args:
            parts: the sizes of each batch.
            order: for each image of the result its place in the batches, one after the other.
        """
        levels = zip(*(part.shapes for part in parts), strict=True)
        whole = tuple((max(h for h, _ in level), max(w for _, w in level)) for level in levels)
        parts_valid = [sizes for part in parts for sizes in part.valid]
        valid = tuple(parts_valid[index] for index in order)
        return cls(whole, valid, any(sizes != whole for sizes in valid))

    def masks(self, device: torch.device) -> list[Bool[Tensor, "n _ _"]]:
        """Give an (n, h, w) bool mask of each level, True = padding."""
        if not self.padded:
            count = len(self.valid)
            return [
                torch.zeros(count, h, w, dtype=torch.bool, device=device) for h, w in self.shapes
            ]
        masks = []
        for level, (rows, columns) in enumerate(self.shapes):
            mask = torch.ones(len(self.valid), rows, columns, dtype=torch.bool, device=device)
            for image, sizes in enumerate(self.valid):
                h, w = sizes[level]
                mask[image, :h, :w] = False
            masks.append(mask)
        return masks

    @property
    def fewest_tokens(self) -> int:
        """The number of tokens that are image, of the image with the fewest."""
        return min(sum(h * w for h, w in sizes) for sizes in self.valid)

    def of_one(self) -> "LevelSizes":
        """The sizes of one image, where all are alike since nothing is padded."""
        return self if self.padded else LevelSizes(self.shapes, (self.shapes,), padded=False)


def layout_of(sizes: LevelSizes, device: torch.device, keep: bool) -> Layout:
    """Lay out the tokens of a batch.

    Args:
        sizes: of the batch's levels.
        device: that of the tensors.
        keep: take what was kept for the same sizes, and keep it for the next call.
    """
    return _layout(sizes.of_one(), device, keep=keep).for_images(len(sizes.valid))


def embed_positions(
    embedding: nn.Module, sizes: LevelSizes, device: torch.device, keep: bool
) -> list[Float[Tensor, "n d _ _"]]:
    """Embed the places of a batch's cells.

    Args:
        embedding: maps an (n, h, w) padding mask to (n, d, h, w).
        sizes: of the batch's levels.
        device: that of the masks.
        keep: take what was kept for one image, or several without padding, of the same sizes, and
            keep it for the next call, where `embedding` is a sine embedding.

    Returns:
        (n, d, h, w) per level.
    """
    one, count = sizes.of_one(), len(sizes.valid)
    if type(embedding) is not PositionEmbeddingSine or len(one.valid) > 1:
        return [embedding(mask) for mask in sizes.masks(device)]
    positions = _sine_positions(one, embedding.settings, device, keep=keep)
    return [position.expand(count, -1, -1, -1) for position in positions]


@remembered(REMEMBERED_SIZES)
def _layout(sizes: LevelSizes, device: torch.device) -> Layout:
    return Layout.of_masks(sizes.masks(device), sizes.padded, sizes.fewest_tokens)


@remembered(REMEMBERED_SIZES)
def _sine_positions(
    sizes: LevelSizes, settings: tuple[Any, ...], device: torch.device
) -> list[Tensor]:
    embedding = PositionEmbeddingSine(*settings)
    return [embedding(mask) for mask in sizes.masks(device)]
