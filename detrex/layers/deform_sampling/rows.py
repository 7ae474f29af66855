"""Sampling by weighted sums of rows: the fastest way on a processor.

Values become the rows of a table; the four pixels around a place are row numbers, and bilinear
shares times attention weights are theirs. One `embedding_bag` then adds the rows up, where
`grid_sample` would write every sample to memory first.

Each level has a border of zeros, two pixels wide, so that a place outside needs no mask: it is
moved to pixels of the border. Lines of a level run on into each other, hence the left border of a
line is the right border of the one above it.

Shape suffixes: N images, S tokens of all levels, Q queries, H heads, D channels of a head,
L levels, P points per head and level, K = L * P, M = N * Q * H sums, R rows of a table.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid_sample import Sizes
from .operators import make_operators

BORDER = 2
QUERIES_AT_ONCE = 4096
NUMBERS_AT_ONCE = 2**18  # of gathered rows
MOST_INT32_ROWS = 2**31
# PyTorch before 2.7 cannot tell the two apart; a compiled graph then shows the operations too.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Lines and columns from the upper left pixel around a place to each of the four."""


def why_not(device: str, dtype: torch.dtype) -> str:
    """Tell why this kernel cannot run: it always can, though on a processor only is it fast.

    Args:
        device: type of the tensors' device.
        dtype: that of the values.

    Returns:
        An empty string.
    """
    return ""


def attend(
    value_NSHD: Tensor, locations_NQHLP2: Tensor, weights_NQHLP: Tensor, sizes: Sizes
) -> Tensor:
    """Sample each level at the given places and add the samples up by their weights.

    Args:
        value_NSHD: tokens of all levels; half precision is summed in float32.
        locations_NQHLP2: places (x, y) from 0 to 1 in each level, in float32, or float64 where the
            values are.
        weights_NQHLP: weights, of the locations' dtype.
        sizes: (height, width) of each level.

    Returns:
        (N, Q, H * D) sums, of the dtype of the values.
    """
    inputs = (value_NSHD, locations_NQHLP2, weights_NQHLP)
    if _is_exporting():
        # Whoever reads the graph knows PyTorch's operators alone.
        return _sum_up(*inputs, sizes)
    return _OPERATOR(*inputs, [side for size in sizes for side in size])


def _pairs(sides: Sequence[int]) -> Sizes:
    return list(zip(sides[::2], sides[1::2], strict=True))


def _forward(value: Tensor, locations: Tensor, weights: Tensor, sides: Sequence[int]) -> Tensor:
    return _sum_up(value, locations, weights, _pairs(sides))


def _backward(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, sides: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute row numbers and shares again: kept, they would be the most of what training keeps."""
    inputs = (value, locations, weights, grad.to(locations.dtype), _pairs(sides))
    with torch.autocast(grad.device.type, enabled=False):
        return _gradient_of_values(*inputs), *_gradients_of_places(*inputs)


_OPERATOR = make_operators("deformable_attention_by_rows", _forward, _backward)


class _Grid(NamedTuple):
    """What turns places into row numbers: (H, K) tensors, constant along H but for `start`."""

    width: Tensor
    height: Tensor
    last_x: Tensor
    last_y: Tensor
    stride: Tensor
    start: Tensor


class _Corners(NamedTuple):
    """The four pixels around each place: (N, Q, H, K) row numbers of the top left one, and shares.

    `x` and `y` are the shares of the right and of the lower pixels.
    """

    row: Tensor
    x: Tensor
    y: Tensor
    stride: Tensor

    def rows(self) -> Tensor:
        """Give the (N, Q, H, 4, K) row numbers: upper left and right, lower left and right."""
        below = self.row + self.stride
        return torch.stack([self.row, self.row + 1, below, below + 1], dim=-2)

    def shares(self, weights_NQHK: Tensor) -> list[Tensor]:
        """Distribute weights among the four pixels."""
        lower = weights_NQHK * self.y
        upper = weights_NQHK - lower
        upper_right, lower_right = upper * self.x, lower * self.x
        return [upper - upper_right, upper_right, lower - lower_right, lower_right]


def _blocks(N: int, Q: int) -> Iterator[tuple[slice, list[slice]]]:
    """Divide images, or queries of one, so that what is computed on the way fits the cache.

    Small images go together: each block costs the calls of all its operations.

    An exported graph is one block, whatever the sizes.
    """
    if _is_exporting() or N == 0:
        yield slice(None), [slice(None)]
        return
    images = max(QUERIES_AT_ONCE // max(Q, 1), 1)
    for n in range(0, N, images):
        starts = range(0, max(Q, 1), QUERIES_AT_ONCE)
        yield slice(n, n + images), [slice(q, q + QUERIES_AT_ONCE) for q in starts]


def _levels(sizes: Sizes) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Give each level's tokens, its rows in a head's table, and its size with the border."""
    token = row = 0
    for height, width in sizes:
        bordered = (height + 2 * BORDER, width + BORDER)
        tokens, rows = height * width, bordered[0] * bordered[1]
        yield slice(token, token + tokens), slice(row, row + rows), bordered
        token, row = token + tokens, row + rows


def _row_count(sizes: Sizes) -> int:
    return sum(rows * columns for _, _, (rows, columns) in _levels(sizes)) + BORDER


def _table(value_NSHD: Tensor, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """Give each head's values rows, between borders of zeros: (N * H * R, D)."""
    N, _, H, D = value_NSHD.shape
    table_NHRD = value_NSHD.new_zeros(N, H, _row_count(sizes), D, dtype=dtype)
    for (tokens, rows, bordered), (height, width) in zip(_levels(sizes), sizes, strict=True):
        level = table_NHRD[:, :, rows].unflatten(2, bordered)
        inside = level[:, :, BORDER : BORDER + height, BORDER:]
        inside.copy_(value_NSHD[:, tokens].unflatten(1, (height, width)).permute(0, 3, 1, 2, 4))
    return table_NHRD.flatten(0, 2)


def _grid(locations_NQHLP2: Tensor, sizes: Sizes) -> _Grid:
    N, _, H, L, P, _ = locations_NQHLP2.shape
    rows = _row_count(sizes)
    dtype = torch.int32 if N * H * rows < MOST_INT32_ROWS else torch.int64
    starts = [rows.start for _, rows, _ in _levels(sizes)]
    numbers = [
        [height, width, height + BORDER, width + BORDER, start]
        for (height, width), start in zip(sizes, starts, strict=True)
    ]
    device = locations_NQHLP2.device
    table = torch.tensor(numbers, dtype=dtype, device=device).T[:, None, :, None]
    height, width, last_y, stride, start = table.expand(5, H, L, P).flatten(2)
    start = start + torch.arange(H, dtype=dtype, device=device)[:, None] * rows
    shape = locations_NQHLP2.dtype
    return _Grid(width.to(shape), height.to(shape), stride, last_y, stride, start)


def _corners(locations_NQHLP2: Tensor, sizes: Sizes, grid: _Grid) -> _Corners:
    N, _, H = locations_NQHLP2.shape[:3]
    x_NQHK, y_NQHK = locations_NQHLP2.flatten(3, 4).unbind(-1)
    x, column = _along(x_NQHK, grid.width, grid.last_x)
    y, line = _along(y_NQHK, grid.height, grid.last_y)
    images = torch.arange(N, dtype=line.dtype, device=line.device) * (H * _row_count(sizes))
    row = torch.addcmul(images[:, None, None, None] + grid.start, line, grid.stride).add_(column)
    return _Corners(row, x, y, grid.stride)


def _along(places_NQHK: Tensor, length: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Give the share of the next pixel, and the pixel, along one side of a level with its border.

    Numbers that no integer can hold become some integer, which then is moved into the border; NaN
    and infinity stay in the share.
    """
    # Rounded as in `grid_sample`: untrained places are at the very centres of pixels, where the
    # gradient jumps, and should fall on the same side by both kernels.
    doubled = (places_NQHK * 2).sub_(1).add_(1)
    place = torch.addcmul(torch.full_like(length, -0.5), doubled, length / 2)
    floor = place.floor()
    pixel = floor.to(last.dtype).add_(BORDER).clamp_(torch.zeros_like(last), last)
    return place.sub_(floor), pixel


def _sum_up(
    value_NSHD: Tensor, locations_NQHLP2: Tensor, weights_NQHLP: Tensor, sizes: Sizes
) -> Tensor:
    N, _, H, D = value_NSHD.shape
    Q = locations_NQHLP2.shape[1]
    sums = []
    for n, blocks in _blocks(N, Q):
        table_RD = _table(value_NSHD[n], sizes, locations_NQHLP2.dtype)
        grid = _grid(locations_NQHLP2[n], sizes)
        for q in blocks:
            corners = _corners(locations_NQHLP2[n, q], sizes, grid)
            rows = corners.rows()
            shares = torch.stack(corners.shares(weights_NQHLP[n, q].flatten(3)), dim=-2)
            sums.append(_weighted_sum(_by_sum(rows), table_RD, _by_sum(shares)))
    return _joined(sums).view(N, Q, H * D).to(value_NSHD.dtype)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_sum(corners_NQH4K: Tensor) -> Tensor:
    return corners_NQH4K.flatten(0, 2).flatten(1)


def _weighted_sum(
    rows: Tensor, table_RD: Tensor, weights: Tensor, starts: Tensor | None = None
) -> Tensor:
    return F.embedding_bag(rows, table_RD, starts, mode="sum", per_sample_weights=weights)


def _gradients_of_places(
    value_NSHD: Tensor,
    locations_NQHLP2: Tensor,
    weights_NQHLP: Tensor,
    grad_NQC: Tensor,
    sizes: Sizes,
) -> tuple[Tensor, Tensor]:
    """Give the gradients of locations and weights, from the products of `grad` and the pixels."""
    N, _, _, D = value_NSHD.shape
    grads_locations, grads_weights = [], []
    for n, blocks in _blocks(N, grad_NQC.shape[1]):
        table_RD = _table(value_NSHD[n], sizes, locations_NQHLP2.dtype)
        grid = _grid(locations_NQHLP2[n], sizes)
        for q in blocks:
            corners = _corners(locations_NQHLP2[n, q], sizes, grid)
            rows, weights = corners.rows(), weights_NQHLP[n, q].flatten(3)
            products = _products(table_RD, _by_sum(rows), grad_NQC[n, q].reshape(-1, D))
            upper_left, upper_right, lower_left, lower_right = products.view_as(rows).unbind(-2)
            upper = torch.lerp(upper_left, upper_right, corners.x)
            lower = torch.lerp(lower_left, lower_right, corners.x)
            grads_weights.append(torch.lerp(upper, lower, corners.y).flatten(0, 1))
            slope_x = torch.lerp(upper_right - upper_left, lower_right - lower_left, corners.y)
            slopes = (slope_x * weights * grid.width, (lower - upper) * weights * grid.height)
            grads_locations.append(torch.stack(slopes, dim=-1).flatten(0, 1))
    grad_locations = _joined(grads_locations).view(locations_NQHLP2.shape)
    return grad_locations, _joined(grads_weights).view(weights_NQHLP.shape)


def _gradient_of_values(
    value_NSHD: Tensor,
    locations_NQHLP2: Tensor,
    weights_NQHLP: Tensor,
    grad_NQC: Tensor,
    sizes: Sizes,
) -> Tensor:
    """Add to each row what the sums took from it.

    Sorted by the upper left pixel, the places of a pixel stand together, and one more weighted sum
    for each corner runs over rows of the output's gradient. Those sums are moved from the upper
    left pixel to their corner when the levels are cut out.
    """
    count, grads = _row_count(sizes), []
    for n, _ in _blocks(*grad_NQC.shape[:2]):
        corners = _corners(locations_NQHLP2[n], sizes, _grid(locations_NQHLP2[n], sizes))
        shares = corners.shares(weights_NQHLP[n].flatten(3))
        N, H, D = len(corners.row), *value_NSHD.shape[2:]
        sums = _sums_by_pixel(corners.row, shares, grad_NQC[n].reshape(-1, D), count)
        levels = []
        for (_, rows, bordered), (height, width) in zip(_levels(sizes), sizes, strict=True):
            parts = [
                corner.view(N, H, count, D)[:, :, rows]
                .unflatten(2, bordered)
                .narrow(2, BORDER - down, height)
                .narrow(3, BORDER - right, width)
                for corner, (down, right) in zip(sums, CORNERS, strict=True)
            ]
            level_NHhwD = parts[0] + parts[1] + parts[2] + parts[3]
            levels.append(level_NHhwD.permute(0, 2, 3, 1, 4).flatten(1, 2))
        grads.append(torch.cat(levels, dim=1).to(value_NSHD.dtype))
    return _joined(grads)


def _sums_by_pixel(
    row_NQHK: Tensor, shares: list[Tensor], grad_MD: Tensor, rows_of_a_head: int
) -> list[Tensor]:
    """Sum the gradients at all places of an upper left pixel, (N * H * R, D) for each corner."""
    N, _, H, K = row_NQHK.shape
    dtype, device = row_NQHK.dtype, row_NQHK.device
    rows, order = row_NQHK.flatten().sort()
    numbers = torch.arange(N * H * rows_of_a_head, dtype=dtype, device=device)
    starts = torch.searchsorted(rows, numbers, out_int32=dtype == torch.int32)
    sums = torch.arange(len(grad_MD), dtype=dtype, device=device)[:, None].expand(-1, K)
    sums = sums.reshape(-1).index_select(0, order)
    return [
        _weighted_sum(sums, grad_MD, share.flatten().index_select(0, order), starts)
        for share in shares
    ]


def _products(table_RD: Tensor, rows_ME: Tensor, grad_MD: Tensor) -> Tensor:
    """Multiply each sum's gradient with the rows that it was made of: (M, E)."""
    (M, E), D = rows_ME.shape, grad_MD.shape[1]
    products = grad_MD.new_empty(M, 1, E)
    sums = max(NUMBERS_AT_ONCE // max(E * D, 1), 1)
    for m in range(0, M, sums):
        here = slice(m, m + sums)
        gathered = table_RD.index_select(0, rows_ME[here].flatten())
        gathered = gathered.view(-1, E, D)
        torch.bmm(grad_MD[here, None], gathered.transpose(1, 2), out=products[here])
    return products.squeeze(1)
