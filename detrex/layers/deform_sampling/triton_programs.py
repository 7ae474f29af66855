"""The programs that run on the card: each serves a block of queries of one head.

Imported when the kernel first runs, since it needs Triton. A block's channels lie along the second
axis, padded to a power of two. Everything is computed in float32, in float64 where the values are;
row numbers are int64, so that no batch of large pictures is too large.
"""

import triton
import triton.language as tl


@triton.jit
def _level_size(
    level: tl.constexpr,
    size0: tl.tensor,
    size1: tl.tensor,
    size2: tl.tensor,
    size3: tl.tensor,
    size4: tl.tensor,
    size5: tl.tensor,
    size6: tl.tensor,
    size7: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """Unpack the height and width of a level."""
    size = size0
    if level == 1:
        size = size1
    elif level == 2:
        size = size2
    elif level == 3:
        size = size3
    elif level == 4:
        size = size4
    elif level == 5:
        size = size5
    elif level == 6:
        size = size6
    elif level == 7:
        size = size7
    return (size.to(tl.int64) >> 32).to(tl.int32), size.to(tl.int32)


@triton.jit
def _corner(
    corner: tl.constexpr, x: tl.tensor, y: tl.tensor, height: tl.tensor, width: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Find a pixel next to (x, y), in pixels: upper left, upper right, lower left, lower right.

    Gives its row in the level, whether it is within the map, and its shares along x and y. A place
    that is infinite or no number is within no map, and the shares carry it into the result.
    """
    left = tl.floor(x)
    top = tl.floor(y)
    share_x = 1 - (x - left)
    share_y = 1 - (y - top)
    if corner % 2:
        share_x = x - left
        left += 1
    if corner // 2:
        share_y = y - top
        top += 1
    inside = (left >= 0) & (left < width) & (top >= 0) & (top < height)
    column = tl.where(inside, left, 0).to(tl.int32)
    row = tl.where(inside, top, 0).to(tl.int32) * width + column
    return row.to(tl.int64), inside, share_x, share_y


@triton.jit(do_not_specialize=["num_queries", "num_tokens", *(f"size{i}" for i in range(8))])
def forward_program(
    value_NSHD: tl.tensor,
    locations_NQHLP2: tl.tensor,
    weights_NQHLP: tl.tensor,
    output_NQHD: tl.tensor,
    num_queries: tl.tensor,
    num_tokens: tl.tensor,
    size0: tl.tensor,
    size1: tl.tensor,
    size2: tl.tensor,
    size3: tl.tensor,
    size4: tl.tensor,
    size5: tl.tensor,
    size6: tl.tensor,
    size7: tl.tensor,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DTYPE: tl.constexpr,
) -> None:
    """Sum the samples of a block of queries; all tensors are contiguous."""
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    channel = tl.arange(0, BLOCK_D)
    is_query = query < num_queries
    is_channel = (channel < CHANNELS)[None, :]
    out = (batch * num_queries + query) * HEADS + head
    level_base = value_NSHD + (batch * num_tokens * HEADS + head) * CHANNELS

    total = tl.zeros([BLOCK_Q, BLOCK_D], dtype=DTYPE)
    for level in tl.static_range(LEVELS):
        height, width = _level_size(level, size0, size1, size2, size3, size4, size5, size6, size7)
        for point in range(POINTS):
            place = out * (LEVELS * POINTS) + level * POINTS + point
            weight = tl.load(weights_NQHLP + place, mask=is_query, other=0).to(DTYPE)
            x = tl.load(locations_NQHLP2 + 2 * place, mask=is_query, other=0).to(DTYPE)
            y = tl.load(locations_NQHLP2 + 2 * place + 1, mask=is_query, other=0).to(DTYPE)
            x = x * width - 0.5
            y = y * height - 0.5
            for corner in tl.static_range(4):
                row, inside, share_x, share_y = _corner(corner, x, y, height, width)
                rows = level_base + row[:, None] * (HEADS * CHANNELS) + channel[None, :]
                mask = (inside & is_query)[:, None] & is_channel
                sample = tl.load(rows, mask=mask, other=0).to(DTYPE)
                total += sample * (share_x * share_y * weight)[:, None]
        level_base += height.to(tl.int64) * width * (HEADS * CHANNELS)

    outputs = output_NQHD + out[:, None] * CHANNELS + channel[None, :]
    tl.store(outputs, total, mask=is_query[:, None] & is_channel)


@triton.jit(do_not_specialize=["num_queries", "num_tokens", *(f"size{i}" for i in range(8))])
def backward_program(
    grad_NQHD: tl.tensor,
    value_NSHD: tl.tensor,
    locations_NQHLP2: tl.tensor,
    weights_NQHLP: tl.tensor,
    grad_value_NSHD: tl.tensor,
    grad_locations_NQHLP2: tl.tensor,
    grad_weights_NQHLP: tl.tensor,
    num_queries: tl.tensor,
    num_tokens: tl.tensor,
    size0: tl.tensor,
    size1: tl.tensor,
    size2: tl.tensor,
    size3: tl.tensor,
    size4: tl.tensor,
    size5: tl.tensor,
    size6: tl.tensor,
    size7: tl.tensor,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DTYPE: tl.constexpr,
) -> None:
    """Add a block's gradient to that of the values, and write those of its places and weights.

    ``grad_value_NSHD`` starts as zeros, in the dtype of the sums; programs add to it in any order.
    """
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    channel = tl.arange(0, BLOCK_D)
    is_query = query < num_queries
    is_channel = (channel < CHANNELS)[None, :]
    out = (batch * num_queries + query) * HEADS + head
    offset = (batch * num_tokens * HEADS + head) * CHANNELS

    grads = grad_NQHD + out[:, None] * CHANNELS + channel[None, :]
    grad = tl.load(grads, mask=is_query[:, None] & is_channel, other=0).to(DTYPE)
    for level in tl.static_range(LEVELS):
        height, width = _level_size(level, size0, size1, size2, size3, size4, size5, size6, size7)
        for point in range(POINTS):
            place = out * (LEVELS * POINTS) + level * POINTS + point
            weight = tl.load(weights_NQHLP + place, mask=is_query, other=0).to(DTYPE)
            x = tl.load(locations_NQHLP2 + 2 * place, mask=is_query, other=0).to(DTYPE)
            y = tl.load(locations_NQHLP2 + 2 * place + 1, mask=is_query, other=0).to(DTYPE)
            x = x * width - 0.5
            y = y * height - 0.5
            grad_weight = tl.zeros([BLOCK_Q], dtype=DTYPE)
            grad_x = tl.zeros([BLOCK_Q], dtype=DTYPE)
            grad_y = tl.zeros([BLOCK_Q], dtype=DTYPE)
            for corner in tl.static_range(4):
                row, inside, share_x, share_y = _corner(corner, x, y, height, width)
                rows = offset + row[:, None] * (HEADS * CHANNELS) + channel[None, :]
                mask = (inside & is_query)[:, None] & is_channel
                sample = tl.load(value_NSHD + rows, mask=mask, other=0).to(DTYPE)
                share = share_x * share_y
                update = grad * (share * weight)[:, None]
                tl.atomic_add(grad_value_NSHD + rows, update, mask=mask, sem="relaxed")
                product = tl.sum(sample * grad, axis=1)
                grad_weight += share * product
                # A corner's share grows towards it: with x on the right, with y at the bottom.
                grad_x += share_y * product * (2 * (corner % 2) - 1)
                grad_y += share_x * product * (2 * (corner // 2) - 1)
            tl.store(grad_weights_NQHLP + place, grad_weight, mask=is_query)
            grad_x *= weight * width
            grad_y *= weight * height
            tl.store(grad_locations_NQHLP2 + 2 * place, grad_x, mask=is_query)
            tl.store(grad_locations_NQHLP2 + 2 * place + 1, grad_y, mask=is_query)
        offset += height.to(tl.int64) * width * (HEADS * CHANNELS)
