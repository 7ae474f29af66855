"""Transformer layers put together from attentions, feed-forward networks and norms."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from detrex.errors import DetrexWarning

_OPERATIONS = ("self_attn", "norm", "cross_attn", "ffn")


def _copies(module: nn.Module, count: int) -> nn.ModuleList:
    return nn.ModuleList(copy.deepcopy(module) for _ in range(count))


class BaseTransformerLayer(nn.Module):
    """A transformer layer that runs its parts in the order it is told.

    Args:
        attn: one attention module per ``self_attn`` and ``cross_attn`` of the order, or a single
            one that is copied for each.
        ffn: feed-forward network, copied for each ``ffn`` of the order.
        norm: normalisation, copied for each ``norm`` of the order.
        operation_order: names out of ``self_attn``, ``cross_attn``, ``ffn``, ``norm``. A leading
            ``norm`` makes the layer a pre-norm one, whose residuals bypass the norms.

    Raises:
        ValueError: when the order is missing or has an unknown name, or the attentions do not match
            its number.
    """

    def __init__(
        self,
        attn: nn.Module | Sequence[nn.Module],
        ffn: nn.Module,
        norm: nn.Module,
        operation_order: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        order = tuple(operation_order or ())
        unknown = sorted(set(order) - set(_OPERATIONS))
        if not order or unknown:
            raise ValueError(
                f"operation_order must be names out of {', '.join(_OPERATIONS)}, got "
                f"{', '.join(map(repr, unknown)) or 'nothing'}."
            )
        self.num_attn = order.count("self_attn") + order.count("cross_attn")
        if isinstance(attn, nn.Module):
            self.attentions = _copies(attn, self.num_attn)
        else:
            self.attentions = nn.ModuleList(attn)
        if len(self.attentions) != self.num_attn or not self.num_attn:
            raise ValueError(
                f"operation_order {order} has {self.num_attn} attentions, attn has "
                f"{len(self.attentions)}; give one each, and at least one."
            )
        self.operation_order = order
        self.pre_norm = order[0] == "norm"
        self.embed_dim: int = self.attentions[0].embed_dim  # type: ignore[assignment]
        self.ffns = _copies(ffn, order.count("ffn"))
        self.norms = _copies(norm, order.count("norm"))

    def forward(
        self,
        query: Float[Tensor, "*q c"],
        key: Float[Tensor, "*k _"] | None = None,
        value: Float[Tensor, "*k _"] | None = None,
        query_pos: Float[Tensor, "*q c"] | None = None,
        key_pos: Float[Tensor, "*k _"] | None = None,
        attn_masks: Tensor | Sequence[Tensor | None] | None = None,
        query_key_padding_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*q c"]:
        """Run the operations in order.

        Args:
            query: (N, Q, C), or (Q, N, C), as the attentions expect.
            key: keys of the cross-attentions.
            value: values of the cross-attentions.
            query_pos: position embedding of the query.
            key_pos: position embedding of the key.
            attn_masks: one mask (or None) per attention; a single tensor is used for all of them,
                with a warning.
            query_key_padding_mask: (N, Q) bool, True for queries that self-attention ignores.
            key_padding_mask: (N, K) bool, True for keys that cross-attention ignores.
            **kwargs: passed to every attention.

        Returns:
            Tensor shaped like ``query``.

        Raises:
            ValueError: when the masks do not match the number of attentions.
        """
        masks = iter(self._masks(attn_masks))
        attentions, ffns, norms = iter(self.attentions), iter(self.ffns), iter(self.norms)
        identity = query
        for operation in self.operation_order:
            if operation == "norm":
                query = next(norms)(query)
                continue
            residual = identity if self.pre_norm else None
            if operation == "ffn":
                query = next(ffns)(query, residual)
            else:
                is_self = operation == "self_attn"
                query = next(attentions)(
                    query,
                    query if is_self else key,
                    query if is_self else value,
                    residual,
                    query_pos=query_pos,
                    key_pos=query_pos if is_self else key_pos,
                    attn_mask=next(masks),
                    key_padding_mask=query_key_padding_mask if is_self else key_padding_mask,
                    **kwargs,
                )
            identity = query
        return query

    def _masks(
        self, attn_masks: Tensor | Sequence[Tensor | None] | None
    ) -> Sequence[Tensor | None]:
        if attn_masks is None:
            return [None] * self.num_attn
        if isinstance(attn_masks, Tensor):
            if self.num_attn > 1:
                warnings.warn(
                    f"One attn_mask is used for all {self.num_attn} attentions of the layer; give "
                    "a list to tell them apart.",
                    DetrexWarning,
                    stacklevel=3,
                )
            return [attn_masks] * self.num_attn
        if len(attn_masks) != self.num_attn:
            raise ValueError(
                f"attn_masks must have one entry per attention ({self.num_attn}), got "
                f"{len(attn_masks)}."
            )
        return attn_masks


class TransformerLayerSequence(nn.Module):
    """Base class of encoders and decoders: holds the layers; subclasses write ``forward``.

    Args:
        transformer_layers: the layers themselves, or a single one that is copied.
        num_layers: number of copies; for a list, its length when given.

    Raises:
        ValueError: when ``num_layers`` is missing for a single layer, or is not the list's length.
    """

    def __init__(
        self,
        transformer_layers: nn.Module | Sequence[nn.Module] | None = None,
        num_layers: int | None = None,
    ) -> None:
        super().__init__()
        if transformer_layers is None:
            raise ValueError("TransformerLayerSequence needs transformer_layers, got None.")
        if isinstance(transformer_layers, nn.Module) and not isinstance(
            transformer_layers, nn.ModuleList
        ):
            if num_layers is None:
                raise ValueError("num_layers must be given when transformer_layers is one layer.")
            self.layers = _copies(transformer_layers, num_layers)
        else:
            self.layers = nn.ModuleList(transformer_layers)
            if num_layers is not None and num_layers != len(self.layers):
                raise ValueError(
                    f"num_layers is {num_layers}, but transformer_layers has {len(self.layers)}; "
                    "make them equal or leave num_layers out."
                )
        self.num_layers = len(self.layers)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layers; to be written by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward().")
