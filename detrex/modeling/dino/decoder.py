"""The decoder: queries refine their boxes layer by layer (arXiv:2203.03605, section 3.5)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detrex.layers import (
    FFN,
    MLP,
    BaseTransformerLayer,
    MultiheadAttention,
    MultiScaleDeformableAttention,
    TransformerLayerSequence,
    get_sine_pos_embed,
)
from detrex.utils import inverse_sigmoid


class DINOTransformerDecoder(TransformerLayerSequence):
    """Layers of self-attention, deformable cross-attention and feed-forward network, post-norm.

    The detector hands its heads over as the attributes ``class_embed`` and ``bbox_embed``, one of
    each per layer and one more for the encoder's proposals. With ``bbox_embed`` each layer moves
    the reference boxes; without, they stay.

    Arguments are those of `DINOTransformerEncoder`, but:

    Args:
        embed_dim: channels d of queries; a multiple of ``num_heads`` and of 4, for the sine
            embedding of boxes has ``embed_dim / 2`` channels per coordinate.
        return_intermediate: give the states of all layers and not of the last only.
        look_forward_twice: let the loss of a layer reach the boxes of the layer before.

    Raises:
        ValueError: when ``embed_dim`` is not a multiple of 4.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        feedforward_dim: int = 1024,
        attn_dropout: float = 0.1,
        ffn_dropout: float = 0.1,
        num_layers: int = 6,
        return_intermediate: bool = True,
        num_feature_levels: int = 4,
        look_forward_twice: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        if embed_dim % 4:
            raise ValueError(
                f"embed_dim={embed_dim} is not a multiple of 4, which the sine embedding of boxes "
                f"needs; use {embed_dim // 4 * 4 or 4} or {embed_dim // 4 * 4 + 4}."
            )
        super().__init__(
            transformer_layers=BaseTransformerLayer(
                attn=[
                    MultiheadAttention(
                        embed_dim=embed_dim,
                        num_heads=num_heads,
                        attn_drop=attn_dropout,
                        batch_first=True,
                    ),
                    MultiScaleDeformableAttention(
                        embed_dim=embed_dim,
                        num_heads=num_heads,
                        num_levels=num_feature_levels,
                        dropout=attn_dropout,
                        batch_first=True,
                    ),
                ],
                ffn=FFN(
                    embed_dim=embed_dim,
                    feedforward_dim=feedforward_dim,
                    output_dim=embed_dim,
                    ffn_drop=ffn_dropout,
                ),
                norm=nn.LayerNorm(embed_dim),
                operation_order=("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
            ),
            num_layers=num_layers,
        )
        self.embed_dim = embed_dim
        self.num_feature_levels = num_feature_levels
        self.return_intermediate = return_intermediate
        self.look_forward_twice = look_forward_twice
        self.use_checkpoint = use_checkpoint
        self.ref_point_head = MLP(2 * embed_dim, embed_dim, embed_dim, 2)
        self.norm = nn.LayerNorm(embed_dim)
        self.class_embed: nn.ModuleList | None = None
        self.bbox_embed: nn.ModuleList | None = None

    def forward(
        self,
        query: Float[Tensor, "n q d"],
        key: Float[Tensor, "n s d"] | None,
        value: Float[Tensor, "n s d"] | None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_masks: list[Bool[Tensor, "q q"] | None] | None = None,
        query_key_padding_mask: Bool[Tensor, "n q"] | None = None,
        key_padding_mask: Bool[Tensor, "n s"] | None = None,
        *,
        reference_points: Float[Tensor, "n q 4"],
        valid_ratios: Float[Tensor, "n l 2"],
        all_layers: bool = True,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "*layers n q d"], Float[Tensor, "*layers n q 4"]]:
        """Run the layers; each starts from the boxes that the one before has found.

        Args:
            query: (n, q, d) content queries.
            key: (n, s, d) memory of the encoder.
            value: (n, s, d) the same.
            query_pos: made from the reference boxes at each layer; None.
            key_pos: not used by deformable attention; None.
            attn_masks: for self- and cross-attention, (q, q) bool with True = hidden, and None.
            query_key_padding_mask: (n, q) bool, True = a query that no other may look at.
            key_padding_mask: (n, s) bool, True = padding.
            reference_points: (n, q, 4) cxcywh in 0..1 of the image.
            valid_ratios: (n, levels, 2) share of a level's width and height that is image.
            all_layers: give every layer's states and boxes; else, with ``return_intermediate``, the
                last layer's states and the boxes that it started from.
            **kwargs: ``spatial_shapes``, the (height, width) of each level, for deformable
                attention.

        Returns:
            With ``return_intermediate`` the normalised states (layers, n, q, d) and the boxes
            (layers, n, q, 4) after each layer, or without `all_layers` (1, n, q, d) and (1, n, q,
            4); without, the last layer's state (n, q, d) as it is and its boxes (n, q, 4).
        """
        ratios_n1l4 = valid_ratios.repeat(1, 1, 2)[:, None]
        last_only = self.return_intermediate and not all_layers
        states, references = [], [reference_points]
        for index, layer in enumerate(self.layers):
            reference_nql4 = reference_points[:, :, None] * ratios_n1l4
            step: Callable[..., Tensor] = layer
            if self.use_checkpoint and self.training:
                step = partial(checkpoint, layer, use_reentrant=False)
            query = step(
                query,
                key,
                value,
                query_pos=self._query_position(
                    reference_nql4[:, :, 0] if self.training else reference_points, query.dtype
                ),
                attn_masks=attn_masks,
                query_key_padding_mask=query_key_padding_mask,
                key_padding_mask=key_padding_mask,
                reference_points=reference_nql4,
                **kwargs,
            )
            if last_only and index == self.num_layers - 1:
                return self.norm(query)[None], references[-1][None]
            refined = self._refined(index, query, reference_points)
            reference_points = refined.detach()
            states.append(query)
            references.append(refined if self.look_forward_twice else reference_points)
        if not self.return_intermediate:
            return states[-1], references[-1]
        return torch.stack([self.norm(state) for state in states]), torch.stack(references[1:])

    def _refined(self, index: int, state: Tensor, boxes: Tensor) -> Tensor:
        """Move (n, q, 4) boxes by the head of a layer, where there is one."""
        if self.bbox_embed is None:
            return boxes
        return (self.bbox_embed[index](state) + inverse_sigmoid(boxes)).sigmoid()

    def _query_position(self, boxes: Tensor, dtype: torch.dtype) -> Tensor:
        """Embed (n, q, 4) boxes as (n, q, d) positional queries.

        Training takes boxes in the frame of the padded batch, as the original does; evaluation
        takes them in the frame of each image, which is the same for one that is not padded.
        """
        return self.ref_point_head(get_sine_pos_embed(boxes, self.embed_dim // 2).to(dtype))
