"""Layer normalisation over channels, wherever they stand."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Layer normalisation of (..., C) tokens or of (N, C, H, W) maps (ConvNeXt, arXiv:2201.03545).

    Args:
        normalized_shape: number of channels C.
        eps: added to the variance.
        channel_last: True where the channels are the last dimension, False where they are the
            second.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6, channel_last: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.channel_last = channel_last
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Normalise over the channels; the shape stays."""
        if not self.channel_last:
            x = x.movedim(1, -1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x if self.channel_last else x.movedim(-1, 1)
