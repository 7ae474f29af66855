"""A convolution with its normalisation and activation."""

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class ConvNormAct(nn.Module):
    """Convolution, then normalisation, then activation; the last two are optional.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel.
        stride: stride of the convolution.
        padding: zeros added on each side.
        dilation: spacing of the kernel's taps.
        groups: number of groups of the convolution.
        bias: whether the convolution has a bias.
        norm_layer: a module (not a class), used as it is.
        activation: a module (not a class), used as it is.
        **kwargs: passed to `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        norm_layer: nn.Module | None = None,
        activation: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            **kwargs,
        )
        self.norm = norm_layer
        self.activation = activation

    def forward(self, x: Float[Tensor, "n _ _ _"]) -> Float[Tensor, "n _ _ _"]:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W')."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


ConvNorm = partial(ConvNormAct, activation=None)
