"""Rotary positions, against rotations in the complex plane."""

import pytest
import torch
from torch.testing import assert_close

from detrex.modeling.backbone.eva_02_utils import VisionRotaryEmbeddingFast


def by_rotation(vectors, height, width, dim, squeeze_to=None):
    """Turn each pair of channels as one complex number: by the row, then by the column."""
    pairs = torch.view_as_complex(vectors.unflatten(-1, (-1, 2)).contiguous())
    speeds = [10000 ** (-2 * k / dim) for k in range(dim // 2)]
    rows = torch.empty_like(pairs)
    for token in range(height * width):
        row, column = divmod(token, width)
        if squeeze_to is not None:
            row, column = row * squeeze_to / height, column * squeeze_to / width
        angles = [row * s for s in speeds] + [column * s for s in speeds]
        turns = torch.polar(torch.ones(dim), torch.tensor(angles)).to(pairs.dtype)
        rows[..., token, :] = pairs[..., token, :] * turns
    return torch.view_as_real(rows).flatten(-2)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (9, 2)])
def test_forward__squeezes_positions_into_those_of_pretraining(size):
    rope = VisionRotaryEmbeddingFast(6, pt_seq_len=16, ft_seq_len=4)
    vectors = torch.randn(2, 3, size[0] * size[1], 12)
    expected = by_rotation(vectors, *size, 6, squeeze_to=16)
    assert_close(rope(vectors, *size), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_forward__whole_positions(size):
    rope = VisionRotaryEmbeddingFast(4, pt_seq_len=4)
    vectors = torch.randn(1, 1, size[0] * size[1], 8)
    expected = by_rotation(vectors, *size, 4)
    assert_close(rope(vectors, *size), expected, rtol=1e-4, atol=1e-4)


def test_forward__the_kept_tables_are_those_of_the_rule():
    rope = VisionRotaryEmbeddingFast(4, pt_seq_len=16, ft_seq_len=5)
    vectors = torch.randn(1, 25, 8)
    kept = rope(vectors, 5, 5)
    rope.side = 0
    assert_close(rope(vectors, 5, 5), kept, rtol=0, atol=0)


def test_load_state_dict__other_grids_and_no_tables_leave_its_own():
    rope = VisionRotaryEmbeddingFast(4, pt_seq_len=16, ft_seq_len=5)
    cos = rope.freqs_cos.clone()
    rope.load_state_dict({}, strict=True)
    rope.load_state_dict(VisionRotaryEmbeddingFast(4, 16, 7).state_dict(), strict=True)
    assert_close(rope.freqs_cos, cos, rtol=0, atol=0)
    other = VisionRotaryEmbeddingFast(4, 14, 5)
    rope.load_state_dict(other.state_dict(), strict=True)
    assert_close(rope.freqs_cos, other.freqs_cos, rtol=0, atol=0)
