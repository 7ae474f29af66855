"""Position embeddings, against loops over pixels and features."""

import math

import pytest
import torch

from detrex.layers import PositionEmbeddingLearned, PositionEmbeddingSine, get_sine_pos_embed


def _waves(position, features, temperature):
    values = []
    for i in range(features):
        angle = position / temperature ** (2 * (i // 2) / features)
        values.append(math.cos(angle) if i % 2 else math.sin(angle))
    return values


def _mask():
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[0, 3:] = True
    mask[1, :, 6:] = True
    return mask


@pytest.mark.parametrize(("normalize", "offset"), [(False, 0.0), (True, 0.0), (True, -0.5)])
def test_sine__equals_loop(normalize, offset):
    sine = PositionEmbeddingSine(6, temperature=20, normalize=normalize, offset=offset)
    mask = _mask()
    out = sine(mask)
    assert out.shape == (2, 12, 5, 7)
    for b, row, column in [(0, 0, 0), (0, 2, 6), (1, 4, 3), (0, 4, 1), (1, 2, 6)]:
        y = (~mask[b, : row + 1, column]).sum().item()
        x = (~mask[b, row, : column + 1]).sum().item()
        if normalize:
            height = (~mask[b, :, column]).sum().item()
            width = (~mask[b, row]).sum().item()
            y = (y + offset) / (height + 1e-6) * 2 * math.pi
            x = (x + offset) / (width + 1e-6) * 2 * math.pi
            if height * width == 0:
                continue
        expected = torch.tensor(_waves(y, 6, 20) + _waves(x, 6, 20))
        torch.testing.assert_close(out[b, :, row, column], expected, rtol=1e-4, atol=1e-4)


def test_sine__has_no_parameters_and_runs_on_meta():
    sine = PositionEmbeddingSine(6)
    assert not sine.state_dict()
    assert sine(torch.zeros(2, 5, 7, dtype=torch.bool, device="meta")).shape == (2, 12, 5, 7)


def test_sine__odd_width_is_refused():
    with pytest.raises(ValueError, match=r"num_pos_feats must be even .* got 7"):
        PositionEmbeddingSine(7)


def test_learned__x_half_first():
    learned = PositionEmbeddingLearned(3, row_num_embed=5, col_num_embed=7)
    out = learned(_mask())
    assert out.shape == (2, 6, 5, 7)
    expected = torch.cat([learned.col_embed.weight[6], learned.row_embed.weight[2]])
    torch.testing.assert_close(out[1, :, 2, 6], expected)
    assert sorted(learned.state_dict()) == ["col_embed.weight", "row_embed.weight"]


def test_learned__map_larger_than_the_tables_is_refused():
    with pytest.raises(ValueError, match="got a map of 5x7, its tables hold 5 rows and 6 columns"):
        PositionEmbeddingLearned(3, 5, 6)(_mask())


@pytest.mark.parametrize("exchange_xy", [True, False])
@pytest.mark.parametrize("coordinates", [2, 4])
def test_get_sine_pos_embed__equals_loop(coordinates, exchange_xy):
    points = torch.rand(2, 3, coordinates)
    out = get_sine_pos_embed(points, 6, temperature=20, exchange_xy=exchange_xy)
    order = [1, 0, 2, 3] if exchange_xy else [0, 1, 2, 3]
    numbers = points[1, 2].tolist()
    expected = [
        wave for i in order[:coordinates] for wave in _waves(numbers[i] * 2 * math.pi, 6, 20)
    ]
    assert out.shape == (2, 3, coordinates * 6)
    torch.testing.assert_close(out[1, 2], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_sine__width_left_to_the_detector():
    embedding = PositionEmbeddingSine(None, normalize=True)
    mask = torch.zeros(1, 3, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match="num_pos_feats=None: give half the channels"):
        embedding(mask)
    embedding.num_pos_feats = 4
    expected = PositionEmbeddingSine(4, normalize=True)(mask)
    torch.testing.assert_close(embedding(mask), expected, rtol=0, atol=0)
