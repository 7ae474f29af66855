"""The transformer: levels become tokens, the best tokens queries, and queries states.

Letters in shapes: n images, l levels, s tokens of all levels, k selected queries, p denoising
queries, q = p + k, d channels, (h, w) a level.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detrex.errors import ConfigError
from detrex.layers import MultiScaleDeformableAttention
from detrex.modeling.consistency import check_consistent
from detrex.utils.misc import at_least_float32

from .decoder import DINOTransformerDecoder
from .encoder import DINOTransformerEncoder
from .tokens import Layout, flatten_levels


class HiddenStates(NamedTuple):
    """What the transformer gives to the heads.

    Attributes:
        inter_states: (layers, n, q, d) normalised states of the decoder.
        init_reference: (n, q, 4) boxes before the first of these layers, cxcywh in 0..1.
        inter_references: (layers, n, q, 4) boxes after each layer; those of the last may be left
            out.
        enc_state: (n, k, d) the selected tokens of the encoder.
        enc_reference: (n, k, 4) the boxes that the encoder proposes at them.
        query_padding: (n, k) bool, True = a query taken from padding; None where there is none.
    """

    inter_states: Float[Tensor, "layers n q d"]
    init_reference: Float[Tensor, "n q 4"]
    inter_references: Float[Tensor, "_ n q 4"]
    enc_state: Float[Tensor, "n k d"]
    enc_reference: Float[Tensor, "n k 4"]
    query_padding: Bool[Tensor, "n k"] | None

    @property
    def layer_references(self) -> Float[Tensor, "layers n q 4"]:
        """The boxes (layers, n, q, 4) that each decoder layer started from."""
        later = self.inter_references[: len(self.inter_states) - 1]
        return torch.cat([self.init_reference[None], later])


class DINOTransformer(nn.Module):
    """Encoder, mixed query selection (arXiv:2203.03605, 3.4) and decoder.

    The detector hands its heads over as ``decoder.class_embed`` and ``decoder.bbox_embed``; the
    last of each scores and moves the encoder's proposals.

    Args:
        encoder: usually :class:`DINOTransformerEncoder`.
        decoder: usually :class:`DINOTransformerDecoder`.
        num_feature_levels: feature levels that the neck gives.
        two_stage_num_proposals: queries to select; there are fewer where there are fewer tokens.
        learnt_init_query: content queries are learnt (one per rank) instead of the selected tokens.

    Raises:
        ConfigError: when encoder, decoder and ``num_feature_levels`` do not agree.
    """

    def __init__(
        self,
        encoder: DINOTransformerEncoder,
        decoder: DINOTransformerDecoder,
        num_feature_levels: int = 4,
        two_stage_num_proposals: int = 900,
        learnt_init_query: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.num_feature_levels = num_feature_levels
        self.two_stage_num_proposals = two_stage_num_proposals
        self.embed_dim = encoder.embed_dim
        for name in ("embed_dim", "num_feature_levels"):
            parts = {
                "transformer": self,
                "transformer.encoder": encoder,
                "transformer.decoder": decoder,
            }
            check_consistent(
                {f"{who}.{name}": getattr(part, name, None) for who, part in parts.items()}
            )

        self.level_embeds = nn.Parameter(torch.empty(num_feature_levels, self.embed_dim))
        self.learnt_init_query = learnt_init_query
        if learnt_init_query:
            self.tgt_embed = nn.Embedding(two_stage_num_proposals, self.embed_dim)
        self.enc_output = nn.Linear(self.embed_dim, self.embed_dim)
        self.enc_output_norm = nn.LayerNorm(self.embed_dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw all weights anew: Xavier for matrices, deformable attention by its own rule."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        nn.init.normal_(self.level_embeds)

    def num_queries(self, features: Sequence[Float[Tensor, "n d _ _"]]) -> int:
        """Say how many queries will be selected: no more than ``features`` have tokens."""
        num_tokens = sum(feature.shape[-2] * feature.shape[-1] for feature in features)
        return min(self.two_stage_num_proposals, num_tokens)

    def forward(
        self,
        multi_level_feats: Sequence[Float[Tensor, "n d _ _"]],
        multi_level_masks: Sequence[Bool[Tensor, "n _ _"]] | None,
        multi_level_pos_embeds: Sequence[Float[Tensor, "n d _ _"]],
        query_embed: tuple[Float[Tensor, "n p d"] | None, Float[Tensor, "n p 4"] | None] = (
            None,
            None,
        ),
        attn_masks: list[Bool[Tensor, "q q"] | None] | None = None,
        *,
        layout: Layout | None = None,
        all_layers: bool = True,
        **kwargs: Any,
    ) -> HiddenStates:
        """Encode the levels, select queries, decode them.

        In evaluation padding is never selected before image, and a query taken from it, which
        happens only where an image has fewer tokens than there are queries, is hidden from the
        others.

        Args:
            multi_level_feats: (n, d, h, w) per level, finest first.
            multi_level_masks: (n, h, w) bool per level, True = padding; None with a `layout`.
            multi_level_pos_embeds: (n, d, h, w) per level.
            query_embed: content (n, p, d) and boxes before the sigmoid (n, p, 4) of queries to put
                first, or two times None.
            attn_masks: for the decoder's self- and cross-attention.
            layout: what `multi_level_masks` say, where it is known already.
            all_layers: give the states of all decoder layers; else of the last only, where the
                decoder's ``forward`` is that of `DINOTransformerDecoder`.
            **kwargs: passed to encoder and decoder.

        Returns:
            The states for the heads.

        Raises:
            ValueError: when there are not ``num_feature_levels`` levels.
        """
        if len(multi_level_feats) != self.num_feature_levels:
            raise ValueError(
                f"the neck gives {len(multi_level_feats)} feature levels, but the transformer has "
                f"num_feature_levels={self.num_feature_levels}; set num_outs of the neck to "
                f"{self.num_feature_levels}, or num_feature_levels to {len(multi_level_feats)}."
            )
        if layout is None:
            layout = Layout.of_masks(multi_level_masks or ())
        tokens = flatten_levels(multi_level_feats)
        positions = [
            position + level[:, None, None]
            for position, level in zip(multi_level_pos_embeds, self.level_embeds, strict=True)
        ]
        geometry = {"spatial_shapes": list(layout.shapes), "valid_ratios": layout.valid_ratios}
        memory = self.encoder(
            query=tokens,
            key=None,
            value=None,
            query_pos=flatten_levels(positions).to(tokens.dtype),
            query_key_padding_mask=layout.padding,
            reference_points=layout.references,
            **geometry,
            **kwargs,
        )
        content, boxes_unact, query_padding = self.select_queries(memory, layout)
        references = boxes_unact.detach().sigmoid()
        queries = content.detach()
        if self.learnt_init_query:
            queries = self.tgt_embed.weight[: content.shape[1]].expand_as(content)
        if query_embed[0] is not None and query_embed[1] is not None:
            queries = torch.cat([query_embed[0].to(queries), queries], 1)
            references = torch.cat([query_embed[1].to(references).sigmoid(), references], 1)
        # A user's own decoder gives all layers.
        last_only = not all_layers and type(self.decoder).forward is DINOTransformerDecoder.forward
        states, inter_references = self.decoder(
            query=queries,
            key=memory,
            value=memory,
            attn_masks=attn_masks,
            query_key_padding_mask=query_padding,
            key_padding_mask=layout.padding,
            reference_points=references,
            **geometry,
            **({"all_layers": False} if last_only else {}),
            **kwargs,
        )
        if last_only:
            references, inter_references = inter_references[0], inter_references[1:]
        return HiddenStates(
            states, references, inter_references, content, boxes_unact.sigmoid(), query_padding
        )

    def select_queries(
        self, memory: Float[Tensor, "n s d"], layout: Layout
    ) -> tuple[Float[Tensor, "n k d"], Float[Tensor, "n k 4"], Bool[Tensor, "n k"] | None]:
        """Take the tokens with the highest class score, and their proposals moved by the box head.

        Returns:
            Content (n, k, d), boxes before the sigmoid (n, k, 4) and, in evaluation, (n, k) bool,
            True where padding had to be taken; None where that cannot be.

        Raises:
            ConfigError: when the decoder was not given heads.
        """
        class_embed, bbox_embed = self.decoder.class_embed, self.decoder.bbox_embed
        if class_embed is None or bbox_embed is None:
            raise ConfigError(
                "DINOTransformer has no heads to score proposals with; DINO hands them over, or "
                "set decoder.class_embed and decoder.bbox_embed to a ModuleList with one for each "
                "layer and one more."
            )
        memory = memory.masked_fill(~layout.inside[..., None], 0.0)
        with torch.no_grad():  # scores choose tokens, and no loss reaches them
            states = self.enc_output_norm(self.enc_output(memory))
            scores = class_embed[-1](states).amax(-1)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # Older versions of autocast (2.6) keep the weights that they have cast above, which
            # have no gradient, for the next call of the same layers.
            torch.clear_autocast_cache()
        padding = None if self.training else layout.padding
        if padding is not None:
            scores = scores.masked_fill(padding, float("-inf"))
        tokens = scores.shape[1]
        if torch.jit.is_tracing():  # by fvcore's counts of operations, which has tensors for sizes
            tokens = int(tokens)
        k = torch.sym_min(self.two_stage_num_proposals, tokens)
        index = scores.topk(k, dim=1).indices
        if torch.is_grad_enabled():
            content = self.enc_output_norm(self.enc_output(_gather(memory, index)))
        else:
            content = _gather(states, index)
        boxes_unact = at_least_float32(bbox_embed[-1](content))
        boxes_unact = boxes_unact + _gather(layout.proposals, index)
        # A graph must hold for images of other sizes than that which it is made with.
        is_traced = torch.compiler.is_compiling()
        if padding is not None and (is_traced or layout.fewest_tokens < k):
            return content, boxes_unact, padding.gather(1, index)
        return content, boxes_unact, None


def _gather(values_nsd: Tensor, index_nk: Tensor) -> Tensor:
    """Take the tokens ``index_nk`` of each image: (n, s, d) to (n, k, d)."""
    return values_nsd.gather(1, index_nk[..., None].expand(-1, -1, values_nsd.shape[-1]))
