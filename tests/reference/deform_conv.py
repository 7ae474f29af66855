"""Deformable convolution by its definition (arXiv:1811.11168, equation 1), one sample at a time."""

import itertools
import math

import torch


@torch.no_grad()
def deform_conv2d(x, offset, mask, weight, stride, dilation, groups, offset_groups):
    """A 3x3 deformable convolution with padding equal to the dilation.

    Offsets are (y, x) pairs for each of the nine points, group after group of the input's channels.
    """
    batch, channels, height, width = x.shape
    out = torch.zeros(batch, len(weight), offset.shape[2], offset.shape[3])
    for n, o, y, x_out in itertools.product(*(range(size) for size in out.shape)):
        group = o // (len(weight) // groups)
        total = 0.0
        for c, ky, kx in itertools.product(range(weight.shape[1]), range(3), range(3)):
            channel = group * weight.shape[1] + c
            part = 9 * (channel // (channels // offset_groups)) + 3 * ky + kx
            dy, dx = offset[n, 2 * part, y, x_out], offset[n, 2 * part + 1, y, x_out]
            row = y * stride + (ky - 1) * dilation + float(dy)
            column = x_out * stride + (kx - 1) * dilation + float(dx)
            value = bilinear(x[n, channel].tolist(), height, width, row, column)
            total += (
                float(weight[o, c, ky, kx])
                * value
                * (1 if mask is None else float(mask[n, part, y, x_out]))
            )
        out[n, o, y, x_out] = total
    return out


def bilinear(plane, height, width, row, column):
    top, left = math.floor(row), math.floor(column)
    value = 0.0
    for r, c in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= r < height and 0 <= c < width:
            value += plane[r][c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return value
