"""The zeros around an image with which every map of a network covers the whole of it.

A map of stride s has ``ceil(side / s)`` cells where every layer rounds up. Patch embeddings and
poolings of many networks round down, and convolutions without padding lose cells at every border;
some refuse small images. What each needs is found by trial:

    multiple   sides are padded to multiples of it, at the right and the bottom
    margin     zeros on every side, whose cells are cut off again
    least      shorter sides are padded to it
"""

import math
from dataclasses import dataclass

Size = tuple[int, int]


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
        step = math.lcm(self.multiple, step)
        return round_up(side if self.least <= 1 else max(side, self.least), step)

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
    return ceil_div(length, step) * step


def ceil_div(length: int, step: int) -> int:
    """Divide and round up, without negative numbers, which ONNX divides towards zero."""
    return (length + step - 1) // step
