"""Rotary position embedding of EVA-02 (arXiv:2303.11331), and the functions of `utils`."""

from typing import Any

import torch
from torch import Tensor, nn

from .utils import PatchEmbed, get_abs_pos, window_partition, window_unpartition

__all__ = [
    "PatchEmbed",
    "VisionRotaryEmbeddingFast",
    "get_abs_pos",
    "window_partition",
    "window_unpartition",
]


class VisionRotaryEmbeddingFast(nn.Module):
    """Turns pairs of channels by angles that grow with a token's row and column (arXiv:2104.09864).

    The first half of the channels is turned by the row, the second by the column. Tables for one
    square grid are kept as buffers, for the names of checkpoints; for any other grid the angles are
    computed by the same rule. A state dict without the tables, or with those of another grid,
    leaves them as they are.

    Args:
        dim: half of the channels, a multiple of 2.
        pt_seq_len: side of the grid in pretraining, in tokens.
        ft_seq_len: side of the grid of the tables. Positions are squeezed to the range of
            `pt_seq_len` on this and every other grid. None: the tables are those of `pt_seq_len`,
            and positions are whole numbers on any grid.
        theta: ratio of the greatest wave length to the least.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(
        self,
        dim: int,
        pt_seq_len: int = 16,
        ft_seq_len: int | None = None,
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        self.dim, self.pt_seq_len, self.theta = dim, pt_seq_len, theta
        self.squeezed = ft_seq_len is not None
        self.side = pt_seq_len if ft_seq_len is None else ft_seq_len
        cos, sin = self._tables(self.side, self.side, None)
        self.register_buffer("freqs_cos", cos)
        self.register_buffer("freqs_sin", sin)

    def _tables(
        self, height: int, width: int, device: torch.device | None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles of each token: (height * width, 2 * dim) each."""
        exponents = torch.arange(0, self.dim, 2, device=device).float() / self.dim
        angles = []
        for side in (height, width):
            places = torch.arange(side, device=device).float()
            if self.squeezed:
                places = places / side * self.pt_seq_len
            by_place = places[:, None] * (1 / self.theta**exponents)
            angles.append(by_place.repeat_interleave(2, dim=1))
        shape = (height, width, self.dim)
        rows, columns = angles[0][:, None].expand(shape), angles[1].expand(shape)
        table = torch.cat([rows, columns], dim=-1).flatten(0, 1)
        return table.cos(), table.sin()

    def forward(self, t: Tensor, height: int, width: int) -> Tensor:
        """Turn queries or keys.

        Args:
            t: (..., height * width, 2 * dim) vectors of the tokens of a map, row by row.
            height: rows of the map.
            width: columns of the map.

        Returns:
            The same shape.
        """
        if height == width == self.side:
            cos, sin = self.freqs_cos, self.freqs_sin
        else:
            cos, sin = self._tables(height, width, t.device)
        even, odd = t.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-odd, even], dim=-1).flatten(-2)
        return t * cos + turned * sin

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name, table in self.named_buffers():
            given = state_dict.get(prefix + name)
            if given is None or given.shape != table.shape:
                state_dict[prefix + name] = table
        super()._load_from_state_dict(state_dict, prefix, *args)
