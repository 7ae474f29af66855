"""Position embeddings for another size of image or window, by bicubic resampling.

A table is known by ``pos`` in its name and by its shape::

    (1, N, C) or (N, C)       absolute, a token a cell, class and register tokens before them
    (1, C, H, W), (1, H, W, C)  absolute, as a map
    (N, heads), (heads, H, W) ``bias``: a value a head for every offset in a window of h x w cells,
                              N = (2h - 1)(2w - 1), with 3 for the class token after them (BEiT,
                              arXiv:2106.08254)
    (2S - 1, C)               ``rel_pos``: a vector for every offset along one side
                              (arXiv:2112.01526)
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST_PREFIX_TOKENS = 8
_CLASS_OFFSETS = 3

Grid = tuple[int, int]


def resize_position_embedding(
    name: str, table: Tensor, wanted: Tensor, module: nn.Module
) -> Tensor | None:
    """Resample a position embedding to the size that a module needs.

    Args:
        name: the table's name in the module.
        table: the pretrained table.
        wanted: the module's own, whose values stay for tokens that `table` does not have.
        module: asked for the grid or window where it is not a square.

    Returns:
        A table of the shape of `wanted` and the dtype of `table`; None where this is no position
        table, or differs in more than its size.
    """
    if "pos" not in name.lower() or not table.is_floating_point() or table.ndim != wanted.ndim:
        return None
    own = torch.zeros(wanted.shape) if wanted.is_meta else wanted.detach().float().cpu()
    resized = _resize(name.lower(), table.detach().float(), own, _sizes(module, name))
    return None if resized is None else resized.to(table.dtype)


def _resize(name: str, table: Tensor, own: Tensor, sizes: list[Grid]) -> Tensor | None:
    if table.ndim == 4:
        return _resize_map(table, own)
    if "bias" in name:
        return _resize_bias(table, own, sizes)
    if table.shape[-1] != own.shape[-1]:
        return None
    if table.ndim == 2 and "rel" in name:
        return _resize_line(table, own)
    if table.ndim == 2:
        resized = _resize_tokens(table[None], own[None], sizes)
        return None if resized is None else resized[0]
    if table.ndim == 3 and table.shape[0] == own.shape[0] == 1:
        return _resize_tokens(table, own, sizes)
    return None


def _resize_map(table: Tensor, own: Tensor) -> Tensor | None:
    """Resample ``(1, C, H, W)`` or ``(1, H, W, C)``, told apart by the side that is equal."""
    if table.shape[0] != 1 or own.shape[0] != 1:
        return None
    nchw, nhwc = table.shape[1] == own.shape[1], table.shape[3] == own.shape[3]
    if nchw == nhwc:
        return None
    if nchw:
        return _resample(table, (own.shape[2], own.shape[3]))
    size = (own.shape[1], own.shape[2])
    return _resample(table.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


def _resize_tokens(table: Tensor, own: Tensor, sizes: list[Grid]) -> Tensor | None:
    """Resample the grid of ``(1, P + H W, C)``, and keep the P tokens that both have."""
    tokens = range(_MOST_PREFIX_TOKENS + 1)
    found = _split_alike(table.shape[1], own.shape[1], tokens, sizes)
    if found is None:
        return None
    (before, grid), (after, size) = found
    cells = table[:, before:].reshape(1, *grid, -1).permute(0, 3, 1, 2)
    cells = _resample(cells, size).permute(0, 2, 3, 1).flatten(1, 2)
    kept = min(before, after)
    return torch.cat([table[:, :kept], own[:, kept:after], cells], 1)


def _resize_bias(table: Tensor, own: Tensor, windows: list[Grid]) -> Tensor | None:
    """Resample ``(heads, H, W)``, or the window of ``(N, heads)``."""
    if table.ndim == 3 and table.shape[0] == own.shape[0]:
        return _resample(table[None], (own.shape[1], own.shape[2]), antialias=False)[0]
    if table.ndim != 2 or table.shape[1] != own.shape[1]:
        return None
    offsets = [(2 * h - 1, 2 * w - 1) for h, w in windows]
    found = _split_alike(table.shape[0], own.shape[0], (0, _CLASS_OFFSETS), offsets)
    if found is None:
        return None
    (before, grid), (after, size) = found
    if any(side % 2 == 0 for side in (*grid, *size)):
        return None
    count, end = grid[0] * grid[1], size[0] * size[1]
    cells = table[:count].T.reshape(1, -1, *grid)
    cells = _resample(cells, size, antialias=False).flatten(2)[0].T
    last = table[count:] if before == after else own[end:]
    return torch.cat([cells, last])


def _resize_line(table: Tensor, own: Tensor) -> Tensor | None:
    """Resample ``(2S - 1, C)`` as its authors do, linearly."""
    if table.shape[0] % 2 == 0 or own.shape[0] % 2 == 0:
        return None
    line = functional.interpolate(table.T[None], size=own.shape[0], mode="linear")
    return line[0].T


def _split_alike(
    count: int, own_count: int, extras: Iterable[int], sizes: list[Grid]
) -> tuple[tuple[int, Grid], tuple[int, Grid]] | None:
    """Split two numbers of positions into extra ones and a grid, if possible equal extra ones.

    Where both have some, unequal ones are believed only of a grid that is known: any number of
    positions is a square and a few.
    """
    theirs = list(_splits(count, extras, sizes))
    ours = list(_splits(own_count, extras, sizes))
    pairs = [
        (a, b) for b in ours for a in theirs if a[0] == b[0] or 0 in (a[0], b[0]) or b[1] in sizes
    ]
    return min(pairs, key=lambda pair: pair[0][0] != pair[1][0], default=None)


def _splits(count: int, extras: Iterable[int], sizes: list[Grid]) -> Iterator[tuple[int, Grid]]:
    """Ways to see positions as extra ones and a grid: a known one, or a square."""
    for extra in extras:
        yield from ((extra, size) for size in sizes if size[0] * size[1] == count - extra)
    for extra in extras:
        if count > extra and (side := math.isqrt(count - extra)) ** 2 == count - extra:
            yield extra, (side, side)


def _sizes(module: nn.Module, name: str) -> list[Grid]:
    """Grids and windows that the owner of a table, or a part of it, says it has."""
    owner = module.get_submodule(name.rpartition(".")[0])
    found = []
    for part in (owner, *owner.children()):
        for attribute in ("window_size", "grid_size"):
            size = getattr(part, attribute, None)
            if isinstance(size, Sequence) and [type(side) for side in size] == [int, int]:
                found.append((size[0], size[1]))
    return found


def _resample(maps: Tensor, size: Grid, antialias: bool = True) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return functional.interpolate(
        maps, size=size, mode="bicubic", antialias=antialias, align_corners=False
    )
