"""Multi-scale deformable attention (Deformable DETR, arXiv:2010.04159), in pure PyTorch.

Shape suffixes: N batch, S tokens of all levels, Q queries, H heads, D channels of a head,
L levels, P points per head and level. ``A`` stands for N * H, heads as part of the batch.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detrex.utils.misc import at_least_float32

from .deform_sampling.grid_sample import Sizes
from .deform_sampling.kernels import attend

SpatialShapes = Tensor | Sequence[tuple[int, int]]


def _as_sizes(spatial_shapes: SpatialShapes) -> Sizes:
    """Give the (height, width) of each level as Python numbers.

    A tensor has to be read back from its device; a list costs nothing.
    """
    if isinstance(spatial_shapes, Tensor):
        if spatial_shapes.ndim != 2:
            raise ValueError(
                "spatial_shapes must be (L, 2), the height and width of each level, got the "
                f"shape {list(spatial_shapes.shape)}."
            )
        if spatial_shapes.is_meta:
            raise ValueError(
                "spatial_shapes is a meta tensor, which holds no numbers; give a list of "
                "(height, width) instead."
            )
        spatial_shapes = spatial_shapes.tolist()
    return [(_as_number(height), _as_number(width)) for height, width in spatial_shapes]


def _as_number(side: Any) -> Any:
    """Leave symbols of a graph with dynamic sizes as they are."""
    return side if isinstance(side, (int, torch.SymInt)) else int(side)


def _pixels(spatial_shapes: SpatialShapes, like: Tensor) -> Tensor:
    """Give the (width, height) of each level as an (L, 2) tensor, kept for the next call."""
    if isinstance(spatial_shapes, Tensor):
        return spatial_shapes.flip(-1).to(like)
    sizes = tuple((width, height) for height, width in spatial_shapes)
    if torch.compiler.is_compiling() or type(like) is not Tensor:
        # Symbols, and tensors that are no real ones, belong to this call.
        return torch.tensor(sizes, dtype=like.dtype, device=like.device)
    return _kept_pixels(sizes, like.dtype, like.device)


@lru_cache(maxsize=256)
def _kept_pixels(sizes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: Any) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(sizes, dtype=dtype, device=device)


def _check_shapes(value: Tensor, locations: Tensor, weights: Tensor) -> None:
    """Refuse tensors that do not fit each other; that of the levels is checked where they are."""
    fit = value.ndim == 4 and locations.ndim == 6 and locations.shape[:-1] == weights.shape
    if not fit or (value.shape[0], value.shape[2]) != (locations.shape[0], locations.shape[2]):
        raise ValueError(
            "value, sampling_locations and attention_weights must be (N, S, H, D), (N, Q, H, L, P, "
            f"2) and (N, Q, H, L, P), got {list(value.shape)}, {list(locations.shape)} and "
            f"{list(weights.shape)}."
        )


def multi_scale_deformable_attn_pytorch(
    value: Float[Tensor, "n s h d"],
    value_spatial_shapes: SpatialShapes,
    sampling_locations: Float[Tensor, "n q h l p 2"],
    attention_weights: Float[Tensor, "n q h l p"],
) -> Float[Tensor, "n q h*d"]:
    """Sample each level at the given places and add the samples up by their weights.

    Sampling is bilinear between pixel centres, with zeros outside. It is computed in float32 at
    least, since half precision cannot tell the pixels of a large map apart. The gradient can be
    taken once.

    Args:
        value: (N, S, H, D) projected tokens of all levels, S the sum of height * width.
        value_spatial_shapes: (height, width) of each level, as an (L, 2) tensor or, without a
            read-back from the device, as a list.
        sampling_locations: (N, Q, H, L, P, 2) places (x, y), (0, 0) the top left corner of a level
            and (1, 1) its bottom right one.
        attention_weights: (N, Q, H, L, P) weights.

    Returns:
        (N, Q, H * D) sums, of the dtype of ``value``.

    Raises:
        ValueError: when the levels do not add up to S tokens, do not number L, or a tensor has
            another shape.
    """
    _check_shapes(value, sampling_locations, attention_weights)
    sizes = _as_sizes(value_spatial_shapes)
    tokens = sum(height * width for height, width in sizes)
    if tokens != value.shape[1]:
        raise ValueError(
            f"value has {value.shape[1]} tokens, but the levels {sizes} of spatial_shapes have "
            f"{tokens} in total."
        )
    if len(sizes) != sampling_locations.shape[3]:
        raise ValueError(
            f"sampling_locations are for {sampling_locations.shape[3]} levels, spatial_shapes has "
            f"{len(sizes)}: {sizes}."
        )
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    return attend(value, sampling_locations.to(dtype), attention_weights.to(dtype), sizes)


class MultiScaleDeformableAttnFunction:
    """`multi_scale_deformable_attn_pytorch` with the signature of the original's CUDA operator."""

    @staticmethod
    def apply(
        value: Float[Tensor, "n s h d"],
        value_spatial_shapes: SpatialShapes,
        value_level_start_index: Tensor | Sequence[int],
        sampling_locations: Float[Tensor, "n q h l p 2"],
        attention_weights: Float[Tensor, "n q h l p"],
        im2col_step: int = 64,
    ) -> Float[Tensor, "n q h*d"]:
        """Sample each level at the given places and add the samples up by their weights.

        Args:
            value: (N, S, H, D) projected tokens, on any device.
            value_spatial_shapes: (height, width) of each level.
            value_level_start_index: (L,) place of each level's first token in `value`.
            sampling_locations: (N, Q, H, L, P, 2) places (x, y), from 0 to 1 in each level.
            attention_weights: (N, Q, H, L, P) weights.
            im2col_step: accepted for callers of the original; no influence.

        Returns:
            (N, Q, H * D) sums; gradients reach `value`, the places and the weights.

        Raises:
            ValueError: when a level is not within `value`, or their numbers differ.
        """
        sizes, starts = _as_sizes(value_spatial_shapes), [int(i) for i in value_level_start_index]
        ends = [s + height * width for s, (height, width) in zip(starts, sizes, strict=False)]
        fit = len(starts) == len(sizes) > 0 and min(starts) >= 0 and max(ends) <= value.shape[1]
        if not fit:
            raise ValueError(
                f"level_start_index is {starts} for levels of the sizes {sizes} in "
                f"{value.shape[1]} tokens: give for each level the place of its first token."
            )
        if [*starts, value.shape[1]] != [0, *ends]:
            levels = [value[:, start:end] for start, end in zip(starts, ends, strict=True)]
            value = torch.cat(levels, dim=1)
        return multi_scale_deformable_attn_pytorch(
            value, sizes, sampling_locations, attention_weights
        )


class MultiScaleDeformableAttention(nn.Module):
    """Attention that looks at a few learnt places of each level (arXiv:2010.04159, sect. 4.1).

    Args:
        embed_dim: width of queries and values.
        num_heads: number of heads; divides ``embed_dim``.
        num_levels: number of feature levels.
        num_points: places per head and level.
        img2col_step: accepted for configs of the original; no influence.
        dropout: dropout probability of the output.
        batch_first: True for (N, Q, C) inputs, False for (Q, N, C).

    Raises:
        ValueError: when ``num_heads`` does not divide ``embed_dim``.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        img2col_step: int = 64,
        dropout: float = 0.1,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}."
            )
        self.im2col_step = img2col_step
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.batch_first = batch_first
        self.dropout = nn.Dropout(dropout)
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Let head h look its own way, its p-th point p + 1 pixels away, all weights equal."""
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().max(dim=-1, keepdim=True).values
        distance = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = direction[:, None, None] * distance[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Float[Tensor, "*q c"],
        key: Tensor | None = None,
        value: Float[Tensor, "*s c"] | None = None,
        identity: Float[Tensor, "*q c"] | None = None,
        query_pos: Float[Tensor, "*q c"] | None = None,
        key_padding_mask: Bool[Tensor, "n s"] | None = None,
        reference_points: Float[Tensor, "n q l _"] | None = None,
        spatial_shapes: SpatialShapes | None = None,
        level_start_index: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*q c"]:
        """Attend to ``value`` around the reference points.

        Args:
            query: (N, Q, C), or (Q, N, C) without ``batch_first``.
            key: not used; the places are predicted from the query alone.
            value: (N, S, C) tokens of all levels, or (S, N, C); ``query`` by default.
            identity: what the output is added to; ``query`` by default.
            query_pos: position embedding added to the query.
            key_padding_mask: (N, S) bool, True for tokens that count as zero.
            reference_points: (N, Q, L, 2) points or (N, Q, L, 4) boxes (cx, cy, w, h), shares of
                each level's padded map. Offsets are in pixels of a level, or in halves of the box.
            spatial_shapes: (height, width) of each level, an (L, 2) tensor or a list.
            level_start_index: accepted for callers of the original; follows from the shapes.
            **kwargs: ignored; what a transformer layer passes to its other attentions.

        Returns:
            Tensor shaped like ``query``.

        Raises:
            ValueError: when reference points or shapes are missing or do not fit.
        """
        if reference_points is None or spatial_shapes is None:
            raise ValueError(
                "MultiScaleDeformableAttention needs reference_points and spatial_shapes, got "
                f"{'no reference_points' if reference_points is None else 'no spatial_shapes'}."
            )
        value = query if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)

        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask.unsqueeze(-1), 0.0)
        locations = self._sampling_locations(query, reference_points, spatial_shapes)
        output = multi_scale_deformable_attn_pytorch(
            value.unflatten(-1, (self.num_heads, -1)),
            spatial_shapes,
            locations,
            self._point_weights(query, locations.dtype),
        )
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return self.dropout(output) + identity

    def _point_weights(self, query_NQC: Tensor, dtype: torch.dtype) -> Tensor:
        logits = self.attention_weights(query_NQC).unflatten(-1, (self.num_heads, -1))
        points = (self.num_levels, self.num_points)
        return logits.softmax(dim=-1, dtype=dtype).unflatten(-1, points)

    def _sampling_locations(
        self, query_NQC: Tensor, reference_NQLc: Tensor, spatial_shapes: SpatialShapes
    ) -> Tensor:
        """Predict (N, Q, H, L, P, 2) places, in float32 at least."""
        points = (self.num_levels, self.num_points, 2)
        offsets_NQHLP2 = at_least_float32(self.sampling_offsets(query_NQC))
        offsets_NQHLP2 = offsets_NQHLP2.unflatten(-1, (self.num_heads, *points))
        if reference_NQLc.shape[-1] not in (2, 4):
            raise ValueError(
                "reference_points must end in 2 (x, y) or 4 (cx, cy, w, h) coordinates, got shape "
                f"{tuple(reference_NQLc.shape)}."
            )
        # Repeated for the points in memory, since sums whose runs are two numbers long are slow.
        center, *box = (
            pair[:, :, None, :, None].expand(-1, -1, 1, *points).contiguous()
            for pair in at_least_float32(reference_NQLc).split(2, dim=-1)
        )
        if box:
            share = 0.5 / self.num_points
            return torch.addcmul(center, offsets_NQHLP2, box[0], value=share)
        pixels_L2 = _pixels(spatial_shapes, offsets_NQHLP2)
        pixels_HLP2 = pixels_L2[:, None].expand(self.num_heads, *points).contiguous()
        return torch.addcdiv(center, offsets_NQHLP2, pixels_HLP2)
