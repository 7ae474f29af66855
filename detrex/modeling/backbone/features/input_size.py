"""Which image sizes a network takes, and how an image of any other size is fitted.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .coverage import Coverage, Size, ceil_div, round_up
from .feature_info import FeatureInfo


@dataclass(frozen=True)
class InputSize:
    """What is done to an image so that a network takes it.

    Attributes:
        multiple: height and width are padded to multiples of it; 1 for no need.
        tile: height and width in pixels of the only image that the network takes, or None.
        keywords: what the network is to be built with for the rule to hold.
        coverage: zeros that are added inside besides, so that maps cover the whole image.
        cells: strides of the maps whose cells a padded image is to fill, in pixels.
    """

    multiple: int = 1
    tile: Size | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    cells: tuple[int, ...] = ()

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
        return self.steps == (1, 1) and self.coverage == Coverage() and not self.cells

    @property
    def steps(self) -> Size:
        """Height and width must be multiples of these, in pixels."""
        return self.tile or (self.multiple, self.multiple)

    @property
    def size_divisibility(self) -> int:
        """Multiple that both sides of an image must be of; 0 where any size will do."""
        step = math.lcm(*self.steps)
        return 0 if step == 1 else step

    def fitted_size(self, image_size: Sequence[int]) -> Size:
        """Give the size to which an image is padded, without the margin of `coverage`.

        Args:
            image_size: height and width in pixels.
        """
        # Cells that divide another one ask for nothing more, and each would be one more term of the
        # maximum where sizes are symbols.
        cells = [c for c in self.cells if not any(d % c == 0 for d in self.cells if d != c)]
        height, width = (
            self.coverage.padded(max(round_up(side, cell) for cell in cells or [1]), step)
            for side, step in zip(image_size, self.steps, strict=True)
        )
        return height, width

    def fit(self, images: torch.Tensor) -> "FittedImages":
        """Pad images with zeros at the right and the bottom, and cut them into tiles, where needed.

        Args:
            images: ``(N, C, H, W)`` of any size.
        """
        height, width = images.shape[-2:]
        fitted = self.fitted_size((height, width))
        padded = pad_to(images, fitted, self.coverage.margin)
        whole = (padded.shape[-2], padded.shape[-1])
        return FittedImages(self, self.split(padded), (height, width), fitted, whole)

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

    def split(self, images: torch.Tensor) -> torch.Tensor:
        """Split fitted images into tiles, row by row.

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

    def merge(self, maps: torch.Tensor, image_size: Sequence[int]) -> torch.Tensor:
        """Merge the maps of tiles into maps of the images; the reverse of `split`.

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


class FittedImages(NamedTuple):
    """Images as a network takes them, and the way back for its maps.

    Attributes:
        rule: how they were fitted.
        images: ``(N, C, H, W)``, or the tiles of all images.
        image_size: height and width in pixels as they came.
        fitted_size: as they were padded at the right and the bottom.
        padded_size: with the margin on every side.
    """

    rule: InputSize
    images: torch.Tensor
    image_size: Size
    fitted_size: Size
    padded_size: Size

    def strides(
        self, maps: Mapping[str, torch.Tensor], features: Iterable[FeatureInfo]
    ) -> dict[str, tuple[float, float]]:
        """Give the exact strides of a network's maps: of tiles as they are, else the nominal ones.

        Args:
            maps: of `images`, by the names of `features`.
            features: what the network gives.
        """
        if self.rule.tile is None:
            return {feature.name: (feature.stride, feature.stride) for feature in features}
        height, width = self.images.shape[-2:]
        return {name: (height / m.shape[-2], width / m.shape[-1]) for name, m in maps.items()}

    def merge(
        self, maps: Mapping[str, torch.Tensor], features: Iterable[FeatureInfo]
    ) -> dict[str, torch.Tensor]:
        """Give the maps of the images without their margin.

        Args:
            maps: of `images`, by the names of `features`.
            features: what the network gives.
        """
        merged = {name: self.rule.merge(m, self.padded_size) for name, m in maps.items()}
        if self.padded_size == self.fitted_size:
            return merged
        return {f.name: self._without_margin(merged[f.name], f) for f in features}

    def crop(
        self, maps: Mapping[str, torch.Tensor], features: Iterable[FeatureInfo]
    ) -> dict[str, torch.Tensor]:
        """Cut off the cells that see nothing but padding.

        Args:
            maps: outputs for the padded images, by the names of `features`.
            features: the outputs.
        """
        if self.padded_size == self.image_size:
            return dict(maps)
        return {f.name: _cropped(maps[f.name], f.stride, self.image_size) for f in features}

    def _without_margin(self, level_map: torch.Tensor, feature: FeatureInfo) -> torch.Tensor:
        height, width = level_map.shape[-2:]
        row, column = self.rule.first_cells((height, width), self.fitted_size, feature.stride)
        return _cropped(level_map[..., row:, column:], feature.stride, self.fitted_size)


def _cropped(level_map: torch.Tensor, stride: int, size: Size) -> torch.Tensor:
    height, width = (ceil_div(side, stride) for side in size)
    return level_map[..., :height, :width].contiguous()


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
