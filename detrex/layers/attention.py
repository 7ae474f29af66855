"""Attention layers that add position embeddings and the residual connection themselves."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def _defaults(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    query_pos: Tensor | None,
    key_pos: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Settle key, value and the key's position; keys that may be the queries share theirs."""
    key = query if key is None else key
    if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
        key_pos = query_pos
    return key, key if value is None else value, key_pos


class MultiheadAttention(nn.Module):
    """`torch.nn.MultiheadAttention` with position embeddings, output dropout and residual.

    Args:
        embed_dim: width of the tokens.
        num_heads: number of heads.
        attn_drop: dropout probability of the attention weights.
        proj_drop: dropout probability of the output.
        batch_first: True for (N, Q, C) inputs, False for (Q, N, C).
        **kwargs: passed to `torch.nn.MultiheadAttention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        batch_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.batch_first = batch_first
        self.attn = nn.MultiheadAttention(
            embed_dim, num_heads, dropout=attn_drop, batch_first=batch_first, **kwargs
        )
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self,
        query: Float[Tensor, "*q c"],
        key: Float[Tensor, "*k _"] | None = None,
        value: Float[Tensor, "*k _"] | None = None,
        identity: Float[Tensor, "*q c"] | None = None,
        query_pos: Float[Tensor, "*q c"] | None = None,
        key_pos: Float[Tensor, "*k _"] | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*q c"]:
        """Attend from ``query`` to ``key``.

        Args:
            query: (N, Q, C), or (Q, N, C) without ``batch_first``.
            key: (N, K, C) or (K, N, C); ``query`` by default.
            value: shaped like ``key``, which is the default.
            identity: what the output is added to; ``query`` by default.
            query_pos: position embedding added to the query.
            key_pos: position embedding added to the key; ``query_pos`` by default where that has
                the shape of the key.
            attn_mask: (Q, K) or (N * heads, Q, K) bool, True where attention is forbidden, or float
                that is added to the logits.
            key_padding_mask: (N, K) bool, True for keys to ignore.
            **kwargs: ignored; what a transformer layer passes to its other attentions.

        Returns:
            Tensor shaped like ``query``.
        """
        key, value, key_pos = _defaults(query, key, value, query_pos, key_pos)
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if key_pos is not None:
            key = key + key_pos
        out, _ = self.attn(
            query,
            key,
            value,
            attn_mask=attn_mask,
            key_padding_mask=key_padding_mask,
            need_weights=False,
        )
        return identity + self.proj_drop(out)


class _ConditionalAttention(nn.Module):
    """What both conditional attentions share: projections of content and position apart.

    Shape suffixes: N batch, T tokens, H heads, C width of the tokens, E width of a head.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}."
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.batch_first = batch_first
        self.query_content_proj = nn.Linear(embed_dim, embed_dim)
        self.query_pos_proj = nn.Linear(embed_dim, embed_dim)
        self.key_content_proj = nn.Linear(embed_dim, embed_dim)
        self.key_pos_proj = nn.Linear(embed_dim, embed_dim)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj_drop = nn.Dropout(proj_drop)

    def _heads(self, tokens: Tensor) -> Tensor:
        """Turn (N, T, C), or (T, N, C) without ``batch_first``, into (N, H, T, E)."""
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _mask(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query_NHTE: Tensor
    ) -> Tensor | None:
        """Merge both masks into one that is added to the logits."""
        merged = None
        if attn_mask is not None:
            merged = _additive(attn_mask, query_NHTE.dtype)
            if merged.dim() == 3:
                merged = merged.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, query_NHTE.dtype)[:, None, None]
            merged = padding if merged is None else merged + padding
        return merged

    def _attend(
        self,
        query_NHTE: Tensor,
        key_NHTE: Tensor,
        value_NHTE: Tensor,
        mask: Tensor | None,
        identity: Tensor,
    ) -> Tensor:
        out = F.scaled_dot_product_attention(
            query_NHTE,
            key_NHTE,
            value_NHTE,
            attn_mask=mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if not self.batch_first:
            out = out.transpose(0, 1)
        return identity + self.proj_drop(out)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


class ConditionalSelfAttention(_ConditionalAttention):
    """Self-attention of Conditional DETR (arXiv:2108.06152): content and position projected apart.

    Args:
        embed_dim: width of the tokens.
        num_heads: number of heads; divides ``embed_dim``.
        attn_drop: dropout probability of the attention weights.
        proj_drop: dropout probability of the output.
        batch_first: True for (N, Q, C) inputs, False for (Q, N, C).

    Raises:
        ValueError: when ``num_heads`` does not divide ``embed_dim``.
    """

    def forward(
        self,
        query: Float[Tensor, "*q c"],
        key: Float[Tensor, "*k _"] | None = None,
        value: Float[Tensor, "*k _"] | None = None,
        identity: Float[Tensor, "*q c"] | None = None,
        query_pos: Float[Tensor, "*q c"] | None = None,
        key_pos: Float[Tensor, "*k _"] | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*q c"]:
        """Attend among the queries; arguments and result as in `MultiheadAttention.forward`."""
        key, value, key_pos = _defaults(query, key, value, query_pos, key_pos)
        identity = query if identity is None else identity
        projected_query = self.query_content_proj(query)
        if query_pos is not None:
            projected_query = projected_query + self.query_pos_proj(query_pos)
        projected_key = self.key_content_proj(key)
        if key_pos is not None:
            projected_key = projected_key + self.key_pos_proj(key_pos)
        heads = self._heads(projected_query)
        return self._attend(
            heads,
            self._heads(projected_key),
            self._heads(self.value_proj(value)),
            self._mask(attn_mask, key_padding_mask, heads),
            identity,
        )


class ConditionalCrossAttention(_ConditionalAttention):
    """Cross-attention of Conditional DETR (arXiv:2108.06152, sect. 3.3).

    Content and position are concatenated head by head, so that their logits add up without cross
    terms.

    Arguments are those of `ConditionalSelfAttention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__(embed_dim, num_heads, attn_drop, proj_drop, batch_first)
        self.query_pos_sine_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        query: Float[Tensor, "*q c"],
        key: Float[Tensor, "*k _"] | None = None,
        value: Float[Tensor, "*k _"] | None = None,
        identity: Float[Tensor, "*q c"] | None = None,
        query_pos: Float[Tensor, "*q c"] | None = None,
        key_pos: Float[Tensor, "*k _"] | None = None,
        query_sine_embed: Float[Tensor, "*q c"] | None = None,
        is_first_layer: bool = False,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*q c"]:
        """Attend from the queries to the memory.

        Args:
            query: (N, Q, C), or (Q, N, C) without ``batch_first``.
            key: (N, K, C) or (K, N, C); ``query`` by default.
            value: shaped like ``key``, which is the default.
            identity: what the output is added to; ``query`` by default.
            query_pos: position embedding of the queries; used by the first layer only.
            key_pos: position embedding of the keys, shaped like ``key``.
            query_sine_embed: sine embedding of the queries' reference points, shaped like
                ``query``.
            is_first_layer: whether positions are added to the content as well, since the first
                layer's content knows nothing of where it is.
            attn_mask: as in `MultiheadAttention.forward`.
            key_padding_mask: (N, K) bool, True for keys to ignore.
            **kwargs: ignored; what a transformer layer passes to its other attentions.

        Returns:
            Tensor shaped like ``query``.

        Raises:
            ValueError: when ``key_pos`` or ``query_sine_embed`` is missing, or ``query_pos`` in the
                first layer.
        """
        key, value, key_pos = _defaults(query, key, value, query_pos, key_pos)
        identity = query if identity is None else identity
        if key_pos is None or query_sine_embed is None:
            missing = "key_pos" if key_pos is None else "query_sine_embed"
            raise ValueError(f"ConditionalCrossAttention needs {missing}, got None.")

        key_position = self.key_pos_proj(key_pos)
        query_content = self.query_content_proj(query)
        key_content = self.key_content_proj(key)
        if is_first_layer:
            if query_pos is None:
                raise ValueError("ConditionalCrossAttention needs query_pos in the first layer.")
            query_content = query_content + self.query_pos_proj(query_pos)
            key_content = key_content + key_position
        query_position = self.query_pos_sine_proj(query_sine_embed)
        heads = torch.cat([self._heads(query_content), self._heads(query_position)], dim=-1)
        return self._attend(
            heads,
            torch.cat([self._heads(key_content), self._heads(key_position)], dim=-1),
            self._heads(self.value_proj(value)),
            self._mask(attn_mask, key_padding_mask, heads),
            identity,
        )
