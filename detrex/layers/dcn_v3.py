"""Deformable convolution v3 (InternImage, arXiv:2211.05778, section 3.1), in pure PyTorch.

A depthwise deformable convolution whose kernel is predicted for every cell: it is deformable
attention over one level, with the cells as queries and the groups as heads. Maps are (N, H, W, C).
"""

from numbers import Integral

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detrex.errors import did_you_mean
from detrex.utils.misc import at_least_float32

from .multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

ACTIVATIONS = {"GELU": nn.GELU, "ReLU": nn.ReLU, "SiLU": nn.SiLU}
NORMS = ("LN", "BN")


def dcnv3_core_pytorch(
    input: Float[Tensor, "n _ _ c"],
    offset: Float[Tensor, "n h w _"],
    mask: Float[Tensor, "n h w _"],
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    group_channels: int,
    offset_scale: float,
) -> Float[Tensor, "n h w c"]:
    """Add up samples of a map around every cell of the output.

    The K = kernel_h * kernel_w points of a cell are enumerated column by column (x is the outer
    loop). Sampling is bilinear, with zeros outside, and in float32 at least. The gradient can be
    taken once. `pad_h` is the padding of the height: the original's slow path mixed the two up.

    Args:
        input: (N, H, W, group * group_channels) map.
        offset: (N, Ho, Wo, group * K * 2) shifts (x, y) of the points, in cells.
        mask: (N, Ho, Wo, group * K) weights of the points.
        kernel_h: rows of the kernel.
        kernel_w: columns of the kernel.
        stride_h: rows between two cells of the output.
        stride_w: columns between two cells of the output.
        pad_h: rows of zeros at the top and at the bottom.
        pad_w: columns of zeros at the left and at the right.
        dilation_h: rows between two points.
        dilation_w: columns between two points.
        group: number of groups of channels with points of their own.
        group_channels: channels of a group.
        offset_scale: factor of the kernel's extent and of the offsets.

    Returns:
        (N, Ho, Wo, group * group_channels) map of the dtype of `input`; Ho and Wo are those of a
        convolution.

    Raises:
        ValueError: the kernel does not fit on the map, or the shapes do not fit each other.
    """
    N, height, width, channels = input.shape
    shift = at_least_float32(offset) * offset_scale
    y_Hk = _places(height, kernel_h, stride_h, pad_h, dilation_h, offset_scale, shift)
    x_Wk = _places(width, kernel_w, stride_w, pad_w, dilation_w, offset_scale, shift)
    cells, K = (len(y_Hk), len(x_Wk)), kernel_h * kernel_w
    if not min(cells) or channels != group * group_channels:
        raise ValueError(
            f"a map of {height} x {width} with {channels} channels has no {kernel_h} x {kernel_w} "
            f"kernel of {group} groups of {group_channels} channels: give another padding or group."
        )
    wanted = [[N, *cells, group * K * 2], [N, *cells, group * K]]
    if [list(offset.shape), list(mask.shape)] != wanted:
        raise ValueError(
            f"offset and mask must be of shape {wanted[0]} and {wanted[1]} for this input and "
            f"kernel, got {list(offset.shape)} and {list(mask.shape)}."
        )
    shape = (*cells, kernel_w, kernel_h)
    x, y = x_Wk[None, :, :, None].expand(shape), y_Hk[:, None, None, :].expand(shape)
    queries = cells[0] * cells[1]
    shift_x, shift_y = shift.reshape(N, queries, group, K, 2).unbind(-1)
    shift = torch.stack([shift_x / width, shift_y / height], dim=-1)
    output = multi_scale_deformable_attn_pytorch(
        input.reshape(N, height * width, group, group_channels),
        [(height, width)],
        (torch.stack([x, y], dim=-1).view(queries, 1, K, 2) + shift).unsqueeze(3),
        mask.reshape(N, queries, group, 1, K),
    )
    return output.view(N, *cells, channels)


def _places(
    side: int, kernel: int, stride: int, pad: int, dilation: int, scale: float, like: Tensor
) -> Tensor:
    """Where the points of each cell are along one axis, in shares of the side: (cells, kernel)."""
    span = dilation * (kernel - 1)
    cells = max((side + 2 * pad - span - 1) // stride + 1, 0)
    points = torch.arange(kernel, device=like.device, dtype=like.dtype) * dilation - span // 2
    middle = torch.arange(cells, device=like.device, dtype=like.dtype) * stride + span // 2 - pad
    return (middle[:, None] + points * scale + 0.5) / side


class DCNv3Function:
    """`dcnv3_core_pytorch` under the name and with the arguments of the original's operator."""

    @staticmethod
    def apply(
        input: Float[Tensor, "n _ _ c"],
        offset: Float[Tensor, "n h w _"],
        mask: Float[Tensor, "n h w _"],
        kernel_h: int,
        kernel_w: int,
        stride_h: int,
        stride_w: int,
        pad_h: int,
        pad_w: int,
        dilation_h: int,
        dilation_w: int,
        group: int,
        group_channels: int,
        offset_scale: float,
        im2col_step: int = 256,
    ) -> Float[Tensor, "n h w c"]:
        """Call `dcnv3_core_pytorch`; `im2col_step` is of no influence."""
        kernel, stride, pad = (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w)
        grid = (*kernel, *stride, *pad, dilation_h, dilation_w)
        return dcnv3_core_pytorch(input, offset, mask, *grid, group, group_channels, offset_scale)


class DCNv3(nn.Module):
    """Deformable convolution v3 with its projections (arXiv:2211.05778), of (N, H, W, C) maps.

    Offsets and weights of the points come from a depthwise convolution of the input. A stride is
    that of the depthwise convolution too (the original ran with a stride of 1 alone).

    Args:
        channels: channels of input and output.
        kernel_size: side of the square kernel.
        dw_kernel_size: side of the depthwise convolution's kernel; None for `kernel_size`.
        stride: cells of the input per cell of the output.
        pad: cells of zeros on every side.
        dilation: cells between two points.
        group: number of groups of channels with points of their own; divides `channels`.
        offset_scale: factor of the kernel's extent and of the offsets.
        act_layer: ``"GELU"``, ``"ReLU"`` or ``"SiLU"``, after the depthwise convolution.
        norm_layer: ``"LN"`` or ``"BN"``, after the depthwise convolution.
        center_feature_scale: mix the projected input into the output, by a learnt share a group.

    Raises:
        ValueError: a size is no integer in its range, `group` does not divide `channels`, or a
            layer is unknown.
    """

    def __init__(
        self,
        channels: int = 64,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        center_feature_scale: bool = False,
    ) -> None:
        super().__init__()
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        channels, kernel_size, dw_kernel_size = _integers(
            1, channels=channels, kernel_size=kernel_size, dw_kernel_size=dw_kernel_size
        )
        stride, dilation, group = _integers(1, stride=stride, dilation=dilation, group=group)
        (pad,) = _integers(0, pad=pad)
        if channels % group:
            raise ValueError(f"group must divide the {channels} channels, got {group!r}.")
        self.kernel_size, self.stride, self.pad, self.dilation = kernel_size, stride, pad, dilation
        self.group, self.group_channels, self.offset_scale = group, channels // group, offset_scale
        self.center_feature_scale = center_feature_scale
        padding = (dw_kernel_size - 1) // 2
        self.dw_conv = nn.Sequential(
            nn.Conv2d(channels, channels, dw_kernel_size, stride, padding, groups=channels),
            build_norm_layer(channels, norm_layer, "channels_first", "channels_last"),
            build_act_layer(act_layer),
        )
        points = group * kernel_size**2
        self.offset = nn.Linear(channels, points * 2)
        self.mask = nn.Linear(channels, points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(group, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(group))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set offsets and weights of the points to those of a box filter, projections to Xavier."""
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, input: Float[Tensor, "n _ _ c"]) -> Float[Tensor, "n _ _ c"]:
        """Convolve an (N, H, W, C) map; without stride, and with `pad` to match, the size stays."""
        projected = self.input_proj(input)
        guide = self.dw_conv(input.permute(0, 3, 1, 2))
        weights = self.mask(guide).unflatten(-1, (self.group, -1)).softmax(-1).flatten(-2)
        k, s, p, d = self.kernel_size, self.stride, self.pad, self.dilation
        grid = (k, k, s, s, p, p, d, d, self.group, self.group_channels)
        x = dcnv3_core_pytorch(projected, self.offset(guide), weights, *grid, self.offset_scale)
        if self.center_feature_scale:
            bias = self.center_feature_scale_proj_bias
            share = F.linear(guide, self.center_feature_scale_proj_weight, bias).sigmoid()
            share = share.repeat_interleave(self.group_channels, dim=-1)
            x = torch.lerp(x, projected[:, ::s, ::s], share)
        return self.output_proj(x)


def _integers(least: int, **sizes: int) -> list[int]:
    """Check sizes, which may be NumPy's integers, and give them as Python's."""
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool) or size < least:
            raise ValueError(
                f"DCNv3 takes an integer of at least {least} as {name}, got {size!r:.80}."
            )
    return [int(size) for size in sizes.values()]


DCNv3_pytorch = DCNv3
"""The original's name for the layer without its compiled operator; here there is one layer."""


class Permute(nn.Module):
    """`Tensor.permute` as a layer.

    Args:
        *dims: the dimensions of the input, in the order of the output.
    """

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Permute the dimensions."""
        return x.permute(self.dims)


def build_norm_layer(
    dim: int,
    norm_layer: str,
    in_format: str = "channels_last",
    out_format: str = "channels_last",
    eps: float = 1e-6,
) -> nn.Sequential:
    """Build a norm between the permutations that it needs.

    Args:
        dim: number of channels.
        norm_layer: ``"LN"`` (of the channels of a cell) or ``"BN"``.
        in_format: ``"channels_first"`` (N, C, H, W) or ``"channels_last"`` (N, H, W, C).
        out_format: the same of the output.
        eps: added to the variance of ``"LN"``; ``"BN"`` has PyTorch's.

    Raises:
        ValueError: another norm.
    """
    if norm_layer not in NORMS:
        raise ValueError(
            f"norm_layer must be one of {', '.join(NORMS)}, got {norm_layer!r}."
            f"{did_you_mean(str(norm_layer), NORMS)}"
        )
    own = "channels_last" if norm_layer == "LN" else "channels_first"
    norm = nn.LayerNorm(dim, eps=eps) if norm_layer == "LN" else nn.BatchNorm2d(dim)
    permutes = {"channels_last": Permute(0, 2, 3, 1), "channels_first": Permute(0, 3, 1, 2)}
    before = [permutes[own]] if in_format != own else []
    after = [permutes[out_format]] if out_format != own else []
    return nn.Sequential(*before, norm, *after)


def build_act_layer(act_layer: str) -> nn.Module:
    """Build an activation by its name.

    Args:
        act_layer: ``"GELU"``, ``"ReLU"`` or ``"SiLU"``.

    Raises:
        ValueError: another name.
    """
    if act_layer not in ACTIVATIONS:
        raise ValueError(
            f"act_layer must be one of {', '.join(ACTIVATIONS)}, got {act_layer!r}."
            f"{did_you_mean(str(act_layer), ACTIVATIONS)}"
        )
    return ACTIVATIONS[act_layer]()
