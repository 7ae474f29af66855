"""Weighing and reducing losses."""

import pytest
import torch

from detrex.modeling.losses import reduce_loss, weight_reduce_loss


def test_reduce_loss__kinds():
    loss = torch.rand(3, 5)
    assert torch.equal(reduce_loss(loss, "none"), loss)
    torch.testing.assert_close(reduce_loss(loss, "mean"), loss.mean())
    torch.testing.assert_close(reduce_loss(loss, "sum"), loss.sum())


def test_reduce_loss__mean_of_nothing_is_zero():
    assert reduce_loss(torch.zeros(0, 4), "mean").item() == 0


def test_reduce_loss__unknown_kind():
    with pytest.raises(ValueError, match="must be 'none', 'mean' or 'sum', got 'avg'"):
        reduce_loss(torch.rand(3), "avg")


def test_weight_reduce_loss__weights_and_divisor():
    loss, weight = torch.rand(3, 5), torch.rand(3, 1)
    torch.testing.assert_close(weight_reduce_loss(loss, weight, "none"), loss * weight)
    torch.testing.assert_close(weight_reduce_loss(loss, weight), (loss * weight).mean())
    torch.testing.assert_close(weight_reduce_loss(loss, avg_factor=7), loss.sum() / 7)
    torch.testing.assert_close(weight_reduce_loss(loss, None, "none", avg_factor=7), loss)


def test_weight_reduce_loss__divisor_with_sum():
    with pytest.raises(ValueError, match=r"avg_factor goes with reduction='mean', got .*'sum'"):
        weight_reduce_loss(torch.rand(3), reduction="sum", avg_factor=2)
