"""Relative positions, against a spline fitted channel by channel and detectron2's own functions."""

import numpy as np
import pytest
import torch
from detectron2.modeling.backbone import utils as d2
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from torch.testing import assert_close

from detrex.modeling.backbone import utils


def beit(table, length):
    """Cubic through points at 0, 1, 1 + q, 1 + q + q^2 ..., which reach as far as the new ones."""
    half, reach = len(table) // 2, length // 2
    sums = lambda q: sum(q**i for i in range(half))  # noqa: E731
    if sums(1.01) > reach:
        q = 1.01
    else:
        q = 1.5 if sums(1.5) < reach else brentq(lambda q: sums(q) - reach, 1.01, 1.5)
    places = np.cumsum([q**i for i in range(half)])
    places = np.concatenate([-places[::-1], [0], places])
    spline = interp1d(places, table.numpy(), "cubic", axis=0, fill_value="extrapolate")
    return torch.from_numpy(spline(np.arange(-reach, reach + 1)))


@pytest.mark.parametrize(("size", "new_size"), [(4, 5), (4, 6), (7, 24), (14, 16), (16, 9)])
def test_get_rel_pos__in_the_way_of_beit(size, new_size):
    table = torch.randn(2 * size - 1, 3, dtype=torch.float64)
    expected = beit(table, 2 * new_size - 1)
    observed = utils.get_rel_pos(new_size, new_size, table, "beit")
    for query in range(new_size):
        for key in range(new_size):
            vector = expected[query - key + new_size - 1]
            assert_close(observed[query, key], vector, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("length", [1, 3])
def test_get_rel_pos__in_the_way_of_beit_from_a_tiny_table(length):
    """Too few points for a cubic: a line, or a constant."""
    assert utils.get_rel_pos(3, 3, torch.ones(length, 2), "beit") == pytest.approx(
        torch.ones(3, 3, 2), abs=1e-5
    )


def test_get_rel_pos__gradients_reach_the_table():
    table = torch.zeros(7, 2, requires_grad=True)
    utils.get_rel_pos(6, 6, table, "beit").sum().backward()
    assert table.grad.abs().min() > 0


def test_get_rel_pos__what_is_kept_is_of_no_device_or_mode():
    table = torch.randn(19, 4, dtype=torch.float64, requires_grad=True)
    with torch.device("meta"):
        assert utils.get_rel_pos(8, 8, torch.empty(19, 4), "beit").shape == (8, 8, 4)
    with torch.inference_mode():
        utils.get_rel_pos(8, 8, table, "beit")
        utils.get_rel_pos(9, 9, table, "beit")
    for size in (8, 9):
        observed = utils.get_rel_pos(size, size, table, "beit")
        observed.sum().backward()
        expected = beit(table.detach(), 2 * size - 1)
        assert_close(observed[:, 0], expected[size - 1 :], rtol=1e-3, atol=1e-3)


def test_get_rel_pos__compiles_to_one_graph():
    table = torch.randn(7, 2)
    compiled = torch.compile(utils.get_rel_pos, backend="eager", fullgraph=True)
    expected = utils.get_rel_pos(6, 6, table, "beit")
    assert_close(compiled(6, 6, table, "beit"), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["vitdet", "beit"])
def test_get_rel_pos__a_table_that_fits_is_taken_as_it_is(kind):
    table = torch.randn(9, 2)
    for q_size, k_size in ((5, 5), (5, 3), (2, 5)):
        expected = d2.get_rel_pos(q_size, k_size, table)
        observed = utils.get_rel_pos(q_size, k_size, table, kind)
        assert_close(observed, expected, rtol=0, atol=0)


def test_add_decomposed_rel_pos__equals_detectron2():
    attn, q = torch.randn(2, 12, 6), torch.randn(2, 12, 5)
    tables = torch.randn(5, 5), torch.randn(9, 5)
    sizes = (4, 3), (2, 3)
    expected = d2.add_decomposed_rel_pos(attn, q, *tables, *sizes)
    assert_close(utils.add_decomposed_rel_pos(attn, q, *tables, *sizes), expected)
    assert_close(attn + utils.decomposed_rel_pos(q, *tables, *sizes), expected)
