"""The zeros around an image with which every map of a network covers the whole of it.

A map of stride s has ``ceil(side / s)`` cells where every layer rounds up. Patch embeddings and
poolings of many networks round down, and convolutions without padding lose cells at every border;
some refuse small images. What each needs is found by trial:

    multiple   sides are padded to multiples of it, at the right and the bottom
    margin     zeros on every side, whose cells are cut off again
    least      shorter sides are padded to it
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from detrex.errors import BackboneError
from detrex.modeling.backbone.inspection.meta_run import SizeRefusedError, tried

Size = tuple[int, int]
Run = Callable[[Size], Sequence[Size]]
"""Gives the height and width of every feature for an image size, or raises."""

# One pixel beyond a multiple of 64: the last cell of every map holds a single pixel of the image.
ODD_SIZES: tuple[Size, Size] = ((385, 641), (257, 129))
# Where sides are padded, what counts is every multiple; these leave other rests of 64.
_EVEN_SIZES: tuple[Size, ...] = ((328, 400), (432, 448), (312, 480))
_LEAST_SIDES = (1, 8, 16, 32, 64, 128, 224, 256)


@dataclass(frozen=True)
class Coverage:
    """Zeros with which maps cover the whole image.

    Attributes:
        multiple: height and width are padded to multiples of it; 1 for no need.
        margin: rows and columns of zeros on every side; 0 for no need.
        least: shorter sides are padded to it, in pixels.
    """

    multiple: int = 1
    margin: int = 0
    least: int = 1

    def __str__(self) -> str:
        parts = [
            f"to multiples of {self.multiple}" if self.multiple > 1 else "",
            f"by {self.margin} on every side" if self.margin else "",
            f"to at least {self.least}" if self.least > 1 else "",
        ]
        return f"filled up inside {', '.join(filter(None, parts))}" if any(parts) else "as they are"

    def __or__(self, other: "Coverage") -> "Coverage":
        """Give what satisfies both."""
        return Coverage(
            math.lcm(self.multiple, other.multiple),
            max(self.margin, other.margin),
            max(self.least, other.least),
        )

    @property
    def without_margin(self) -> "Coverage":
        """What lets a map that needs a margin be the library's own: short sides are padded alone.

        A map that is asked for by its index or node, and not by its stride, is the network's as the
        library gives it, though convolutions without padding leave the image's border out.
        """
        if not self.margin:
            return self
        return Coverage(least=round_up(self.least, self.multiple) + 2 * self.margin)

    def padded(self, side: int, step: int = 1) -> int:
        """Give the length to which a side is padded, the margin not counted.

        Args:
            side: height or width in pixels.
            step: multiple that the network wants besides.
        """
        return round_up(max(side, self.least), math.lcm(self.multiple, step))

    def first_cell(self, cells: int, side: int, stride: int) -> int:
        """Give the index of the cell that stands for the image's first pixels.

        Args:
            cells: height or width of a map.
            side: padded height or width of the image in pixels, the margin not counted.
            stride: pixels per cell.
        """
        lost = (side + 2 * self.margin) / stride - cells
        return max(round(self.margin / stride - lost / 2), 0)


def round_up(length: int, step: int) -> int:
    """Give the least multiple of `step` that is not below `length`."""
    return -(-length // step) * step


def find_coverage(who: str, run: Run, step: int, strides: Sequence[int]) -> list[Coverage | None]:
    """Find for each map of a network the least zeros with which it covers images of any size.

    Args:
        who: name of the network, for messages.
        run: how to run it.
        step: multiple of pixels that it takes.
        strides: stride of each map.

    Returns:
        What each map needs; None where nothing helps.

    Raises:
        BackboneError: a trial fails for another reason than the image's size.
    """
    trials = _Trials(who, run, step)
    return [trials.coverage(place, strides) for place in range(len(strides))]


class _Trials:
    """Runs of one network on images of chosen sizes, each done once."""

    def __init__(self, who: str, run: Run, step: int) -> None:
        self.step = step

        @functools.cache
        def cells(size: Size) -> Sequence[Size] | None:
            try:
                maps = tried(who, size, lambda: run(size))
            except SizeRefusedError:
                return None
            # Some versions of torch give empty maps on meta where they raise with data.
            return maps if all(min(sides) > 0 for sides in maps) else None

        self.cells = cells

    def coverage(self, place: int, strides: Sequence[int]) -> Coverage | None:
        """What the map at a place needs."""
        stride = strides[place]
        for candidate in self._candidates(stride, max(strides), place):
            sizes = ODD_SIZES if candidate.multiple == 1 else (*ODD_SIZES, *_EVEN_SIZES)
            whole = dict.fromkeys(self._padded(candidate, size) for size in sizes)
            if not all(self._covers(candidate, size, place, stride) for size in whole):
                continue
            for least in _LEAST_SIDES:
                small = Coverage(candidate.multiple, candidate.margin, least)
                sizes = ((1, 1),) if least == 1 else ((1, 1), (least + 1, 1))
                if all(self._covers(small, size, place, stride) for size in sizes):
                    return small
        return None

    def _candidates(self, stride: int, coarsest: int, place: int) -> Iterator[Coverage]:
        """What to try, the mildest first."""
        yield from map(Coverage, dict.fromkeys((1, stride, coarsest, 2 * coarsest)))
        size = self._padded(Coverage(coarsest), ODD_SIZES[0])
        maps = self.cells(size)
        if maps is None:
            return
        lost = max(side - cells * stride for side, cells in zip(size, maps[place], strict=True))
        margin = round_up(max(lost, 1), 2 * coarsest) // 2
        yield from (Coverage(coarsest, margin), Coverage(coarsest, margin + coarsest))

    def _padded(self, coverage: Coverage, size: Size) -> Size:
        height, width = (coverage.padded(side, self.step) for side in size)
        return height, width

    def _covers(self, coverage: Coverage, size: Size, place: int, stride: int) -> bool:
        """Whether a map has a cell for every pixel of an image of one size."""
        padded = self._padded(coverage, size)
        maps = self.cells((padded[0] + 2 * coverage.margin, padded[1] + 2 * coverage.margin))
        return maps is not None and all(
            cells - coverage.first_cell(cells, whole, stride) >= -(-side // stride)
            for cells, whole, side in zip(maps[place], padded, size, strict=True)
        )


def merged(who: str, names: Sequence[str], coverages: Sequence[Coverage | None]) -> Coverage:
    """Give what satisfies several maps.

    Args:
        who: name of the network, for the message.
        names: of the maps.
        coverages: what each needs.

    Raises:
        BackboneError: one of them covers no image, whatever is added.
    """
    whole = Coverage()
    for name, coverage in zip(names, coverages, strict=True):
        if coverage is None:
            raise BackboneError(
                f"{who} has a map {name!r} that does not follow the size of the image, whatever "
                "zeros are added around it: choose another map."
            )
        whole |= coverage
    return whole
