"""Position tables of another size, against timm's own functions."""

import pytest
import torch
from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from torch import nn
from torch.nn import functional

from detrex.checkpoint.matching.position_embeddings import resize_position_embedding


class Owner(nn.Module):
    """A network that may say which grid or window it has."""

    def __init__(self, table=None, **sizes):
        super().__init__()
        self.pos_embed = table
        self.patch_embed = nn.Module()
        for name, size in sizes.items():
            setattr(self.patch_embed if name == "grid_size" else self, name, size)


def resized(table, shape, name="pos_embed", own=None, **sizes):
    wanted = torch.full(shape, 7.0) if own is None else own
    return resize_position_embedding(name, table, wanted, Owner(**sizes))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("side", [11, 3])
def test_resize_position_embedding__tokens(prefix, side):
    table = torch.randn(1, prefix + 49, 6)
    got = resized(table, (1, prefix + side**2, 6))
    expected = resample_abs_pos_embed(table, [side, side], num_prefix_tokens=prefix)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    flat = resized(table[0], (prefix + side**2, 6), "positional_embedding")
    torch.testing.assert_close(flat, expected[0], rtol=0, atol=1e-6)


def test_resize_position_embedding__tokens_on_a_grid_that_is_no_square():
    table = torch.randn(1, 1 + 49, 6)
    got = resized(table, (1, 1 + 5 * 13, 6), grid_size=(5, 13))
    expected = resample_abs_pos_embed(table, [5, 13], num_prefix_tokens=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert resized(table, (1, 1 + 5 * 13, 6)) is None
    equal_number = resized(torch.randn(1, 1 + 36, 6), (1, 1 + 36, 6), grid_size=(4, 9))
    assert equal_number.shape == (1, 37, 6)


def test_resize_position_embedding__prefix_tokens_that_one_side_lacks():
    table = torch.randn(1, 1 + 49, 6)
    torch.testing.assert_close(resized(table, (1, 49, 6)), table[:, 1:], rtol=0, atol=0)
    own = torch.randn(1, 5 + 121, 6)
    got = resized(table, own.shape, own=own, grid_size=(11, 11))
    torch.testing.assert_close(got[:, :1], table[:, :1], rtol=0, atol=0)
    torch.testing.assert_close(got[:, 1:5], own[:, 1:5], rtol=0, atol=0)
    cells = resample_abs_pos_embed(table[:, 1:], [11, 11], num_prefix_tokens=0)
    torch.testing.assert_close(got[:, 5:], cells, rtol=0, atol=1e-6)


def test_resize_position_embedding__maps():
    table = torch.randn(1, 7, 9, 6)
    expected = resample_abs_pos_embed_nhwc(table, [11, 5])
    got = resized(table, (1, 11, 5, 6))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    got = resized(table.permute(0, 3, 1, 2), (1, 6, 11, 5))
    torch.testing.assert_close(got, expected.permute(0, 3, 1, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize(("window", "known"), [((12, 12), False), ((5, 9), True), ((3, 3), False)])
def test_resize_position_embedding__bias_of_windows(extra, window, known):
    offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
    table, shape = torch.randn(13 * 13 + extra, 4), (offsets + extra, 4)
    sizes = {"window_size": window} if known else {}
    got = resized(table, shape, "relative_position_bias_table", **sizes)
    expected = resize_rel_pos_bias_table_simple(table, window, shape)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_resize_position_embedding__bias_with_the_class_token_on_one_side():
    table = torch.randn(13 * 13 + 3, 4)
    got = resized(table, (13 * 13, 4), "relative_position_bias_table")
    torch.testing.assert_close(got, table[:-3], rtol=0, atol=0)
    got = resized(table[:-3], (23 * 23 + 3, 4), "relative_position_bias_table")
    torch.testing.assert_close(got[-3:], torch.full((3, 4), 7.0), rtol=0, atol=0)


def test_resize_position_embedding__bias_as_a_map():
    table = torch.randn(4, 13, 13)
    got = resized(table, (4, 9, 17), "relative_position_bias_table")
    expected = resize_rel_pos_bias_table_simple(table, (5, 9), (4, 9, 17))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [7, 31])
def test_resize_position_embedding__offsets_along_a_side(side):
    table = torch.randn(13, 6)
    got = resized(table, (side, 6), "rel_pos_h")
    expected = functional.interpolate(table.T[None], side, mode="linear")[0].T
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("weight", (1, 50, 6), (1, 122, 6)),
        ("pos_embed", (1, 50, 6), (1, 50, 7)),
        ("pos_embed", (1, 50, 6), (1, 123, 7)),
        ("pos_embed", (2, 50, 6), (2, 122, 6)),
        ("pos_embed", (1, 48, 6), (1, 122, 6)),
        ("pos_embed", (50, 6), (1, 122, 6)),
        ("pos_embed", (1, 3, 5, 7), (1, 3, 9, 7)),
        ("pos_embed", (2, 3, 5, 7), (2, 3, 9, 8)),
        ("relative_position_bias_table", (169, 4), (529, 5)),
        ("relative_position_bias_table", (170, 4), (529, 4)),
        ("relative_position_bias_table", (144, 4), (529, 4)),
        ("relative_position_bias_table", (4, 13, 13), (5, 23, 23)),
        ("rel_pos_h", (13, 6), (20, 6)),
    ],
)
def test_resize_position_embedding__other_differences_are_left(name, old, new):
    assert resized(torch.randn(old), new, name) is None


def test_resize_position_embedding__dtypes():
    half = resized(torch.randn(1, 49, 6).half(), (1, 121, 6))
    assert half.dtype == torch.float16
    assert (
        resize_position_embedding(
            "pos", torch.zeros(1, 4, 6, dtype=torch.long), torch.zeros(1), Owner()
        )
        is None
    )
    wanted = torch.empty(1, 121, 6, device="meta")
    assert (
        resize_position_embedding("pos_embed", torch.randn(1, 50, 6), wanted, Owner()).device.type
        == "cpu"
    )
