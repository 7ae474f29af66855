"""Stacks of linear layers: the box head's MLP and the transformer's feed-forward network."""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PART = 512
"""Tokens per thread whose hidden layer stays in a processor's cache."""


class MLP(nn.Module):
    """Linear layers with a ReLU between each two (the box head of DETR, arXiv:2005.12872).

    Args:
        input_dim: width of the input.
        hidden_dim: width between the layers.
        output_dim: width of the output.
        num_layers: number of linear layers, at least 1.

    Raises:
        ValueError: when ``num_layers`` is below 1.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"MLP needs at least one layer, got num_layers={num_layers}.")
        self.num_layers = num_layers
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(
            nn.Linear(width, next_width) for width, next_width in itertools.pairwise(widths)
        )

    def forward(self, x: Float[Tensor, "*n _"]) -> Float[Tensor, "*n _"]:
        """Map (..., input_dim) to (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FFN(nn.Module):
    """Feed-forward network of a transformer layer, residual connection included.

    Args:
        embed_dim: width of the input.
        feedforward_dim: width between the linear layers.
        output_dim: width of the output; ``embed_dim`` by default.
        num_fcs: number of linear layers, at least 2.
        activation: module between the linear layers, the same one each time, also where it has
            parameters; a ReLU by default.
        ffn_drop: dropout probability after each linear layer.
        fc_bias: whether the linear layers have a bias.
        add_identity: whether the input (or ``identity``) is added to the output.

    Raises:
        ValueError: when ``num_fcs`` is no integer from 2 on.
        TypeError: when ``activation`` is no module.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        feedforward_dim: int = 1024,
        output_dim: int | None = None,
        num_fcs: int = 2,
        activation: nn.Module | None = None,
        ffn_drop: float = 0.0,
        fc_bias: bool = True,
        add_identity: bool = True,
    ) -> None:
        super().__init__()
        if type(num_fcs) is not int or num_fcs < 2:
            raise ValueError(f"FFN needs at least two linear layers, got num_fcs={num_fcs!r:.80}.")
        if not (activation is None or isinstance(activation, nn.Module)):
            raise TypeError(
                f"FFN takes a module as activation, such as nn.GELU(), got {activation!r:.60}."
            )
        self.embed_dim = embed_dim
        self.feedforward_dim = feedforward_dim
        self.num_fcs = num_fcs
        self.add_identity = add_identity
        self.activation = nn.ReLU(inplace=True) if activation is None else activation
        output_dim = embed_dim if output_dim is None else output_dim

        hidden = [
            nn.Sequential(
                nn.Linear(embed_dim if i == 0 else feedforward_dim, feedforward_dim, bias=fc_bias),
                self.activation,
                nn.Dropout(ffn_drop),
            )
            for i in range(num_fcs - 1)
        ]
        self.layers = nn.Sequential(
            *hidden, nn.Linear(feedforward_dim, output_dim, bias=fc_bias), nn.Dropout(ffn_drop)
        )

    def forward(
        self, x: Float[Tensor, "*n c"], identity: Float[Tensor, "*n _"] | None = None
    ) -> Float[Tensor, "*n _"]:
        """Transform each token.

        Args:
            x: (..., embed_dim) tokens.
            identity: what the result is added to; ``x`` by default.

        Returns:
            (..., output_dim) tokens.
        """
        if self._in_parts(x):
            parts = x.reshape(-1, x.shape[-1]).split(PART * torch.get_num_threads())
            rows = torch.cat([self.layers(part) for part in parts])
            out = rows.view(*x.shape[:-1], rows.shape[-1])
        elif x.dim() != 2 and getattr(self.activation, "inplace", False):
            # A linear layer gives a view there, and the gradient of an in-place activation of a
            # view is copied three times.
            rows = self.layers(x.reshape(-1, x.shape[-1]))
            out = rows.view(*x.shape[:-1], rows.shape[-1])
        else:
            out = self.layers(x)
        if not self.add_identity:
            return out
        return (x if identity is None else identity) + out

    def _in_parts(self, x: Tensor) -> bool:
        """Whether the hidden layer is better never there as a whole, as in a CPU's evaluation."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu":
            return False
        by_token = type(self.activation) in (nn.ReLU, nn.GELU, nn.SiLU)
        return by_token and x.shape[:-1].numel() > PART * torch.get_num_threads()
