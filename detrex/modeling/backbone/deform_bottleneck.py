"""Deformable convolution (arXiv:1703.06211, 1811.11168) in a ResNet's bottleneck block."""

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from detectron2.layers import CNNBlockBase, Conv2d, get_norm
from fvcore.nn import weight_init
from jaxtyping import Float
from torch import nn


class _DeformConv(Conv2d):
    """Deformable convolution with the state_dict of a plain one, computed by torchvision."""

    def forward(
        self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = torchvision.ops.deform_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )
        return x if self.norm is None else self.norm(x)


class DeformBottleneckBlock(CNNBlockBase):
    """Bottleneck block whose 3x3 convolution is deformable (arXiv:1703.06211, 1811.11168).

    Names and shapes of the parameters are those of detectron2's block of this name.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        bottleneck_channels: channels of the 3x3 convolution.
        stride: stride of the block.
        num_groups: groups of the 3x3 convolution.
        norm: norm after each convolution, as for detectron2's ``get_norm``.
        stride_in_1x1: put the stride into the first convolution instead of the 3x3 one.
        dilation: dilation of the 3x3 convolution.
        deform_modulated: learn a weight for each sampled point as well (version 2).
        deform_num_groups: groups of channels with offsets of their own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Any = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.deform_modulated = deform_modulated
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)

        def pointwise(c_in: int, c_out: int, stride: int = 1) -> Conv2d:
            return Conv2d(c_in, c_out, 1, stride=stride, bias=False, norm=get_norm(norm, c_out))

        spatial: dict[str, Any] = {"kernel_size": 3, "stride": stride_3x3}
        spatial |= {"padding": dilation, "dilation": dilation}
        values_per_point = 3 if deform_modulated else 2
        width = bottleneck_channels
        self.shortcut = (
            pointwise(in_channels, out_channels, stride) if in_channels != out_channels else None
        )
        self.conv1 = pointwise(in_channels, width, stride_1x1)
        self.conv2_offset = Conv2d(width, values_per_point * 9 * deform_num_groups, **spatial)
        self.conv2 = _DeformConv(
            width, width, groups=num_groups, bias=False, norm=get_norm(norm, width), **spatial
        )
        self.conv3 = pointwise(width, out_channels)
        for layer in (self.conv1, self.conv2, self.conv3, self.shortcut):
            if layer is not None:
                weight_init.c2_msra_fill(layer)
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)

    def forward(self, x: Float[torch.Tensor, "n _ _ _"]) -> Float[torch.Tensor, "n _ _ _"]:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        out = F.relu_(self.conv1(x))
        offset, mask = self.conv2_offset(out), None
        if self.deform_modulated:
            points = offset.shape[1] // 3
            offset, mask = offset.split([2 * points, points], dim=1)
            mask = mask.sigmoid()
        out = F.relu_(self.conv2(out, offset, mask))
        out = self.conv3(out)
        out = out + (x if self.shortcut is None else self.shortcut(x))
        return F.relu_(out)
