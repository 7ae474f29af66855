"""The encoder: tokens of all levels attend to each other, deformably (arXiv:2010.04159)."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detrex.layers import (
    FFN,
    BaseTransformerLayer,
    MultiScaleDeformableAttention,
    TransformerLayerSequence,
)


class DINOTransformerEncoder(TransformerLayerSequence):
    """Layers of deformable self-attention and feed-forward network, post-norm.

    Args:
        embed_dim: channels d of tokens; a multiple of ``num_heads``.
        num_heads: attention heads.
        feedforward_dim: hidden channels of the feed-forward network.
        attn_dropout: dropout after attention, 0..1.
        ffn_dropout: dropout in the feed-forward network, 0..1.
        num_layers: number of layers.
        post_norm: normalise once more after the last layer.
        num_feature_levels: feature levels that attention looks at.
        use_checkpoint: recompute each layer in the backward pass instead of keeping its
            activations.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        feedforward_dim: int = 1024,
        attn_dropout: float = 0.1,
        ffn_dropout: float = 0.1,
        num_layers: int = 6,
        post_norm: bool = False,
        num_feature_levels: int = 4,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__(
            transformer_layers=BaseTransformerLayer(
                attn=MultiScaleDeformableAttention(
                    embed_dim=embed_dim,
                    num_heads=num_heads,
                    num_levels=num_feature_levels,
                    dropout=attn_dropout,
                    batch_first=True,
                ),
                ffn=FFN(
                    embed_dim=embed_dim,
                    feedforward_dim=feedforward_dim,
                    output_dim=embed_dim,
                    num_fcs=2,
                    ffn_drop=ffn_dropout,
                ),
                norm=nn.LayerNorm(embed_dim),
                operation_order=("self_attn", "norm", "ffn", "norm"),
            ),
            num_layers=num_layers,
        )
        self.embed_dim = embed_dim
        self.num_feature_levels = num_feature_levels
        self.use_checkpoint = use_checkpoint
        self.post_norm_layer = nn.LayerNorm(embed_dim) if post_norm else None

    def forward(
        self,
        query: Float[Tensor, "n s d"],
        key: Tensor | None = None,
        value: Tensor | None = None,
        query_pos: Float[Tensor, "n s d"] | None = None,
        key_pos: Tensor | None = None,
        attn_masks: list[Tensor | None] | None = None,
        query_key_padding_mask: Bool[Tensor, "n s"] | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "n s d"]:
        """Run the layers one after the other.

        Args:
            query: (n, s, d) tokens of all levels.
            key: not used by self-attention; None.
            value: not used by self-attention; None.
            query_pos: (n, s, d) position embedding, added to the queries of each layer.
            key_pos: not used by self-attention; None.
            attn_masks: not used by deformable attention; None.
            query_key_padding_mask: (n, s) bool, True = padding, which no token may look at.
            key_padding_mask: not used by self-attention; None.
            **kwargs: ``reference_points`` (n, s, levels, 2) and ``spatial_shapes``, the (height,
                width) of each level, for deformable attention.

        Returns:
            (n, s, d) memory.
        """
        for layer in self.layers:
            step: Callable[..., Tensor] = layer
            if self.use_checkpoint and self.training:
                step = partial(checkpoint, layer, use_reentrant=False)
            query = step(
                query,
                key,
                value,
                query_pos=query_pos,
                attn_masks=attn_masks,
                query_key_padding_mask=query_key_padding_mask,
                key_padding_mask=key_padding_mask,
                **kwargs,
            )
        return query if self.post_norm_layer is None else self.post_norm_layer(query)
