"""Which image sizes a network takes, found by trying: for each feature map, and for all of them."""

import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Coverage, Size, round_up
from detrex.modeling.backbone.features.input_size import InputSize

from .meta_run import SizeRefusedError, tried

logger = logging.getLogger(__name__)

Run = Callable[[Size], Sequence[Size]]
"""Gives the height and width of every feature for an image size, or raises."""

# One pixel beyond a multiple of 64: the last cell of every map holds a single pixel of the image.
ODD_SIZES: tuple[Size, Size] = ((385, 641), (257, 129))
# Where sides are padded, what counts is every multiple; these leave other rests of 64.
_EVEN_SIZES: tuple[Size, ...] = ((328, 400), (432, 448), (312, 480))
_LEAST_SIDES = (1, 8, 16, 32, 64, 128, 224, 256)
# Unpadded convolutions lose the same few cells at any size, so growth is compared, not size.
_GROWTH_TOLERANCE = 1.5


def search_input_size(
    who: str,
    variants: Iterable[tuple[Mapping[str, Any], Run]],
    native: Size,
    strides: Sequence[int],
) -> InputSize:
    """Find the mildest rule under which a network takes images of any size.

    Args:
        who: name of the network, for the message.
        variants: ways to build the network: further keywords, and how to run it then. The first are
            preferred.
        native: image size of the network's own weights.
        strides: stride of each of its features.

    Returns:
        The rule.

    Raises:
        BackboneError: the network takes not even its native size, or a trial fails for another
            reason than the image's size.
    """
    variants = list(variants)
    patch = strides[-1]
    small = (1, patch, 32, 64, 3 * patch) if len(set(strides)) == 1 else (1, 32, 64)
    large = (math.lcm(*native), 128, 256)
    refusals = []
    for multiples in (small, large):
        for keywords, run in variants:
            for multiple in dict.fromkeys(multiples):
                refusal = _refusal(who, multiple, run, strides)
                if refusal is None:
                    return InputSize(multiple, keywords=dict(keywords))
                refusals.append(refusal)
    reasons = []
    for keywords, run in variants:
        try:
            tried(who, native, functools.partial(run, native))
        except SizeRefusedError as error:
            reasons.append(str(error))
        else:
            _warn_of_tiles(who, native, refusals[0])
            return InputSize(tile=native, keywords=dict(keywords))
    raise BackboneError(
        f"{who} could not be run on an image of any size, its own {native[0]} x {native[1]} "
        f"included ({reasons[0]}): choose another network, or give the keywords that it needs."
    )


@functools.cache
def _warn_of_tiles(who: str, native: Size, refusal: str) -> None:
    """Say once that images will be cut into tiles, and why."""
    logger.warning(
        "%s takes images of %d x %d only (%s): any other is cut into tiles of that size",
        *(who, *native, refusal),
    )


def _refusal(who: str, multiple: int, run: Run, strides: Sequence[int]) -> str | None:
    """Why images of multiples are not taken; None where they are, and every map grows with them."""
    sizes = [(round_up(h, multiple), round_up(w, multiple)) for h, w in ODD_SIZES]
    if sizes[0] == sizes[1]:
        return f"multiples of {multiple} are too coarse to be tried"
    try:
        large, small = (tried(who, size, functools.partial(run, size)) for size in sizes)
    except SizeRefusedError as error:
        return str(error)
    pairs = zip(large, small, strides, strict=True)
    grow = all(
        _grows(big[axis], little[axis], sizes[0][axis], sizes[1][axis], stride)
        for big, little, stride in pairs
        for axis in (0, 1)
    )
    return None if grow else "its maps do not grow with the image"


def _grows(big: int, little: int, large: int, small: int, stride: int) -> bool:
    """Whether cells follow the sides of two images, and see no more than is there."""
    follows = abs((big - little) - (large - small) / stride) <= _GROWTH_TOLERANCE
    return follows and big <= -(-large // stride) and little <= -(-small // stride)


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
            yield Coverage(4 * coarsest)  # it cuts its maps into a fixed number of windows
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
