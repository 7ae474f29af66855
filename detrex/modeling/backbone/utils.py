"""Windows and position tables of plain vision transformers (ViTDet, arXiv:2203.16527).

Most are detectron2's functions; relative positions can be resampled in BEiT's way as well.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.modeling.backbone import utils as d2
from detectron2.modeling.backbone.utils import (
    PatchEmbed,
    get_abs_pos,
    window_partition,
    window_unpartition,
)
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "PatchEmbed",
    "add_decomposed_rel_pos",
    "decomposed_rel_pos",
    "get_abs_pos",
    "get_rel_pos",
    "window_partition",
    "window_unpartition",
]


def get_rel_pos(
    q_size: int, k_size: int, rel_pos: Float[Tensor, "_ c"], interp_type: str = "vitdet"
) -> Float[Tensor, "q k c"]:
    """Give the vector of every pair of a query's and a key's place along one side.

    Args:
        q_size: places of queries.
        k_size: places of keys.
        rel_pos: (L, C) table of relative positions, resampled where L is not
            ``2 * max(q_size, k_size) - 1``.
        interp_type: ``"vitdet"``, linear, or ``"beit"``, cubic through points whose distances grow
            geometrically from the middle on (BEiT, arXiv:2106.08254).

    Returns:
        (q_size, k_size, C) vectors.
    """
    length = 2 * max(q_size, k_size) - 1
    if interp_type == "beit" and len(rel_pos) != length:
        rel_pos = _resampling(len(rel_pos), length).to(rel_pos) @ rel_pos
    return d2.get_rel_pos(q_size, k_size, rel_pos)


def decomposed_rel_pos(
    q: Float[Tensor, "b q c"],
    rel_pos_h: Float[Tensor, "_ c"],
    rel_pos_w: Float[Tensor, "_ c"],
    q_size: Sequence[int],
    k_size: Sequence[int],
    interp_type: str = "vitdet",
) -> Float[Tensor, "b q k"]:
    """Give the bias of attention by relative position (arXiv:2112.01526, section 4.1).

    Args:
        q: (B, q_h * q_w, C) queries.
        rel_pos_h: (Lh, C) table of the height.
        rel_pos_w: (Lw, C) table of the width.
        q_size: height and width of the map of queries.
        k_size: height and width of the map of keys.
        interp_type: see `get_rel_pos`.

    Returns:
        (B, q_h * q_w, k_h * k_w) summands of the logits.
    """
    q = q.unflatten(1, tuple(q_size))
    rel_h = get_rel_pos(q_size[0], k_size[0], rel_pos_h, interp_type)
    rel_w = get_rel_pos(q_size[1], k_size[1], rel_pos_w, interp_type)
    bias_h = torch.einsum("bhwc,hkc->bhwk", q, rel_h)
    bias_w = torch.einsum("bhwc,wkc->bhwk", q, rel_w)
    return (bias_h.unsqueeze(4) + bias_w.unsqueeze(3)).flatten(3).flatten(1, 2)


def add_decomposed_rel_pos(
    attn: Float[Tensor, "b q k"],
    q: Float[Tensor, "b q c"],
    rel_pos_h: Float[Tensor, "_ c"],
    rel_pos_w: Float[Tensor, "_ c"],
    q_size: Sequence[int],
    k_size: Sequence[int],
    interp_type: str = "vitdet",
) -> Float[Tensor, "b q k"]:
    """Add `decomposed_rel_pos` to the (B, q_h * q_w, k_h * k_w) logits of attention."""
    return attn + decomposed_rel_pos(q, rel_pos_h, rel_pos_w, q_size, k_size, interp_type)


@torch.compiler.assume_constant_result
def _resampling(length: int, new_length: int) -> Tensor:
    return torch.from_numpy(_geometric_spline(length, new_length))


@functools.lru_cache(maxsize=32)
def _geometric_spline(length: int, new_length: int) -> np.ndarray:
    """Matrix that resamples a table of `length` entries to one of `new_length`, as BEiT does.

    The entries are thought to be at 0, 1, 1 + q, 1 + q + q^2 ... on both sides of the middle, with
    q from 1.01 to 1.5 such that they reach as far as the new ones, which are at whole numbers.
    """
    from scipy.interpolate import make_interp_spline

    half, reach = length // 2, new_length // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    # In NumPy, since what is kept must not depend on torch's default device or inference mode.
    distances = np.cumsum(ratio ** np.arange(half))
    places = np.concatenate([-distances[::-1], [0.0], distances])
    spline = make_interp_spline(places, np.eye(length), k=min(3, length - 1))
    return spline(np.arange(-reach, reach + 1))
