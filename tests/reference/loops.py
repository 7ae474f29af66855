"""Second implementations by plain loops over numbers, to compare the library with."""

import itertools
import math

import torch


def bilinear(image, x, y):
    """Sample a (D, h, w) map at (x, y) in pixels between pixel centres, zeros outside."""
    D, h, w = image.shape
    left, top = math.floor(x), math.floor(y)
    value = torch.zeros(D, dtype=image.dtype)
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < h and 0 <= column < w:
            share = (1 - abs(x - column)) * (1 - abs(y - row))
            value = value + share * image[:, row, column]
    return value


def deformable_attention(value, shapes, locations, weights):
    """Follow the definition of multi-scale deformable attention point by point."""
    N, _, H, D = value.shape
    _, Q, _, L, P, _ = locations.shape
    out = torch.zeros(N, Q, H, D, dtype=value.dtype)
    for n, q, h, level, p in itertools.product(*map(range, (N, Q, H, L, P))):
        start = sum(height * width for height, width in shapes[:level])
        height, width = shapes[level]
        image = value[n, start : start + height * width, h].T.reshape(D, height, width)
        x, y = locations[n, q, h, level, p].tolist()
        sample = bilinear(image, x * width - 0.5, y * height - 0.5)
        out[n, q, h] += weights[n, q, h, level, p] * sample
    return out.flatten(2)


def giou(box, other, eps=1e-6):
    """Generalized IoU of two ``xyxy`` boxes given as four numbers, and their union."""

    def area(x1, y1, x2, y2):
        return max(x2 - x1, 0) * max(y2 - y1, 0)

    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = box, other
    inter = area(max(ax1, bx1), max(ay1, by1), min(ax2, bx2), min(ay2, by2))
    union = area(*box) + area(*other) - inter
    hull = area(min(ax1, bx1), min(ay1, by1), max(ax2, bx2), max(ay2, by2))
    iou = inter / (union + eps)
    return iou - (hull - union) / (hull + eps), iou, union


def focal(logit, target, alpha, gamma):
    """Focal loss of one logit."""
    prob = 1 / (1 + math.exp(-logit))
    if target:
        return -alpha * (1 - prob) ** gamma * math.log(prob)
    return -(1 - alpha) * prob**gamma * math.log(1 - prob)


def cheapest_assignment(cost):
    """Try all ways to give each column of a (Q, T) matrix a row of its own; T <= Q."""
    rows, columns = cost.shape
    return min(
        sum(cost[row, column].item() for column, row in enumerate(chosen))
        for chosen in itertools.permutations(range(rows), columns)
    )


def to_xyxy(box):
    """Corners of a ``cxcywh`` box given as four numbers."""
    cx, cy, w, h = box
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def dcnv3(x, offset, mask, kernel, stride, pad, dilation, group, scale):
    """Follow the definition of deformable convolution v3 point by point; pairs are (y, x)."""
    N, H, W, C = x.shape
    extent = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    out_h, out_w = (
        (n + 2 * p - e - 1) // s + 1 for n, p, e, s in zip((H, W), pad, extent, stride, strict=True)
    )
    width = C // group
    out = torch.zeros(N, out_h, out_w, group, width, dtype=x.dtype)
    for n, row, column, g in itertools.product(*map(range, (N, out_h, out_w, group))):
        image = x[n, :, :, g * width : (g + 1) * width].permute(2, 0, 1)
        shifts = offset[n, row, column].view(group, -1, 2)[g].tolist()
        weights = mask[n, row, column].view(group, -1)[g]
        middle_y, middle_x = extent[0] // 2, extent[1] // 2
        points = itertools.product(range(kernel[1]), range(kernel[0]))
        for (i, j), (dx, dy), weight in zip(points, shifts, weights, strict=True):
            at_x = column * stride[1] - pad[1] + middle_x
            at_y = row * stride[0] - pad[0] + middle_y
            at_x += scale * (i * dilation[1] - middle_x + dx)
            at_y += scale * (j * dilation[0] - middle_y + dy)
            out[n, row, column, g] += weight * bilinear(image, at_x, at_y)
    return out.flatten(3)
