"""Which image sizes a network takes, found by trying, and how an image of any other size is fitted.

::

    any size                    nothing to do
    multiples of a number       zeros at the right and at the bottom
    maps that are too small     zeros that fill the last cells (coverage.py)
    position tables of one size keywords of the network that resample them (`dynamic_img_size`)
    one size only               the image is cut into tiles of that size, and the maps are joined

Tiles keep weights at the size that they were trained at, cost what the image's area costs, and let
networks such as MLP-Mixer, whose weights belong to one number of tokens, serve for any image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from .coverage import Coverage, Size, round_up


@dataclass(frozen=True)
class InputSize:
    """What is done to an image so that a network takes it.

    Attributes:
        multiple: height and width are padded to multiples of it; 1 for no need.
        tile: height and width in pixels of the only image that the network takes, or None.
        keywords: what the network is to be built with for the rule to hold.
        coverage: zeros that are added inside besides, so that maps cover the whole image.
    """

    multiple: int = 1
    tile: Size | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)

    def __str__(self) -> str:
        built = "".join(f", built with {name}={value}" for name, value in self.keywords.items())
        if self.tile is not None:
            return f"images are cut into tiles of {self.tile[0]} x {self.tile[1]}{built}"
        if self.multiple > 1:
            return f"images are padded to multiples of {self.multiple}{built}{self._zeros}"
        return f"images of any size{built}{self._zeros}"

    @property
    def _zeros(self) -> str:
        return "" if self.coverage == Coverage() else f" ({self.coverage})"

    @property
    def is_free(self) -> bool:
        """Whether images of every size go to the network as they are."""
        return self.steps == (1, 1) and self.coverage == Coverage()

    @property
    def steps(self) -> Size:
        """Height and width must be multiples of these, in pixels."""
        return self.tile or (self.multiple, self.multiple)

    @property
    def size_divisibility(self) -> int:
        """Multiple that both sides of an image must be of; 0 where any size will do."""
        step = math.lcm(*self.steps)
        return 0 if step == 1 else step

    def fitted_size(self, image_size: Sequence[int], grid: int = 1) -> Size:
        """Give the size to which an image is padded.

        Args:
            image_size: height and width in pixels.
            grid: the padded image must hold a whole number of cells of this many pixels.

        Returns:
            Padded height and width in pixels, without the margin of `coverage`.
        """
        height, width = (
            self.coverage.padded(round_up(side, grid), step)
            for side, step in zip(image_size, self.steps, strict=True)
        )
        return height, width

    def first_cells(self, map_size: Size, fitted: Size, stride: int) -> Size:
        """Give the row and column of the cell that stands for the image's first pixels.

        Args:
            map_size: height and width of a map of the whole padded image, in cells.
            fitted: as from `fitted_size`.
            stride: pixels per cell.
        """
        row, column = (
            self.coverage.first_cell(cells, side, stride)
            for cells, side in zip(map_size, fitted, strict=True)
        )
        return row, column

    def cut(self, images: torch.Tensor) -> torch.Tensor:
        """Cut fitted images into tiles, row by row.

        Args:
            images: ``(N, C, H, W)`` of a fitted size.

        Returns:
            ``(N * rows * columns, C, tile height, tile width)``; the images themselves where the
            network takes them whole.
        """
        if self.tile is None or images.shape[-2:] == self.tile:
            return images
        tiles = images.unflatten(3, (-1, self.tile[1])).unflatten(2, (-1, self.tile[0]))
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)

    def join(self, maps: torch.Tensor, image_size: Sequence[int]) -> torch.Tensor:
        """Join the maps of tiles into maps of the images; the reverse of `cut`.

        Args:
            maps: ``(N * rows * columns, C, h, w)``.
            image_size: height and width of the fitted images in pixels.

        Returns:
            ``(N, C, rows * h, columns * w)``.
        """
        if self.tile is None or tuple(image_size) == self.tile:
            return maps
        rows, columns = (size // side for size, side in zip(image_size, self.tile, strict=True))
        grid = maps.unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 4, 2, 5)
        return grid.flatten(4, 5).flatten(2, 3)


def pad_to(images: torch.Tensor, size: Size, margin: int = 0) -> torch.Tensor:
    """Pad ``(N, C, H, W)`` with zeros at the right and the bottom to ``(N, C, *size)``.

    Args:
        images: no larger than `size`.
        size: height and width in pixels.
        margin: further rows and columns of zeros on every side.
    """
    height, width = images.shape[-2:]
    if (height, width) == size and not margin:
        return images
    right, bottom = size[1] - width + margin, size[0] - height + margin
    return F.pad(images, (margin, right, margin, bottom))
