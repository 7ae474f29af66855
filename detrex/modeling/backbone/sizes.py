"""Which image sizes a network takes, found by trying, and how an image of any other size is fitted.

::

    any size                    nothing to do
    multiples of a number       zeros at the right and at the bottom
    position tables of one size keywords of the network that resample them (`dynamic_img_size`)
    one size only               the image is cut into tiles of that size, and the maps are joined

Tiles keep weights at the size that they were trained at, cost what the image's area costs, and let
networks such as MLP-Mixer, whose weights belong to one number of tokens, serve for any image.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from detrex.errors import BackboneError

Size = tuple[int, int]
Run = Callable[[Size], Sequence[Size]]
"""Gives the height and width of every feature for an image size, or raises."""

# Oblong images of odd sides, rounded up to the multiple that is being tried, of which they are then
# odd multiples again, lest a network that needs twice as much seems content.
_TRIED_SIZES: tuple[Size, Size] = ((411, 653), (267, 341))
# Unpadded convolutions lose the same few cells at any size, so growth is compared, not size.
_GROWTH_TOLERANCE = 1.5


@dataclass(frozen=True)
class InputRule:
    """What is done to an image so that a network takes it.

    Attributes:
        multiple: height and width are padded to multiples of it; 1 for no need.
        tile: height and width in pixels of the only image that the network takes, or None.
        keywords: what the network is to be built with for the rule to hold.
    """

    multiple: int = 1
    tile: Size | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        built = "".join(f", built with {name}={value}" for name, value in self.keywords.items())
        if self.tile is not None:
            return f"images are cut into tiles of {self.tile[0]} x {self.tile[1]}{built}"
        if self.multiple > 1:
            return f"images are padded to multiples of {self.multiple}{built}"
        return f"images of any size{built}"

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
            Padded height and width in pixels.
        """
        height, width = (
            round_up(round_up(side, grid), step)
            for side, step in zip(image_size, self.steps, strict=True)
        )
        return height, width

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


def round_up(length: int, step: int) -> int:
    """Give the least multiple of `step` that is not below `length`."""
    return -(-length // step) * step


def pad_to(images: torch.Tensor, size: Size) -> torch.Tensor:
    """Pad ``(N, C, H, W)`` with zeros at the right and the bottom to ``(N, C, *size)``."""
    height, width = images.shape[-2:]
    if (height, width) == size:
        return images
    return F.pad(images, (0, size[1] - width, 0, size[0] - height))


def find_input_rule(
    who: str,
    variants: Iterable[tuple[Mapping[str, Any], Run]],
    native: Size,
    strides: Sequence[int],
) -> InputRule:
    """Find the mildest rule under which a network takes images of any size.

    Args:
        who: name of the network, for the message.
        variants: ways to build the network: further keywords, and how to run it then. The first are
            preferred.
        native: image size that the network was made for.
        strides: stride of each of its features.

    Returns:
        The rule.

    Raises:
        BackboneError: the network takes not even its native size.
    """
    variants = list(variants)
    patch = strides[-1]
    small = (1, patch, 32, 64, 3 * patch) if len(set(strides)) == 1 else (1, 32, 64)
    large = (math.lcm(*native), 128, 256)
    for multiples in (small, large):
        for keywords, run in variants:
            for multiple in dict.fromkeys(multiples):
                if _takes_multiples_of(multiple, run, strides):
                    return InputRule(multiple, keywords=dict(keywords))
    reasons = []
    for keywords, run in variants:
        try:
            run(native)
        except Exception as error:  # any forward may refuse a size in its own way
            reasons.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        else:
            return InputRule(tile=native, keywords=dict(keywords))
    raise BackboneError(
        f"{who} could not be run on an image of any size, its own {native[0]} x {native[1]} "
        f"included ({reasons[0]}): choose another network, or give the keywords that it needs."
    )


def _takes_multiples_of(multiple: int, run: Run, strides: Sequence[int]) -> bool:
    """Whether images of multiples are taken, and every map grows with the image."""
    sizes = [(round_up(h, multiple), round_up(w, multiple)) for h, w in _TRIED_SIZES]
    if sizes[0] == sizes[1]:
        return False
    try:
        large, small = run(sizes[0]), run(sizes[1])
    except Exception:  # a refusal, in whatever words, is the answer
        return False
    pairs = zip(large, small, strides, strict=True)
    return all(
        _grows(big[axis], little[axis], sizes[0][axis], sizes[1][axis], stride)
        for big, little, stride in pairs
        for axis in (0, 1)
    )


def _grows(big: int, little: int, large: int, small: int, stride: int) -> bool:
    """Whether cells follow the sides of two images, and look at no more than is there."""
    follows = abs((big - little) - (large - small) / stride) <= _GROWTH_TOLERANCE
    return follows and big <= -(-large // stride) and little <= -(-small // stride)
