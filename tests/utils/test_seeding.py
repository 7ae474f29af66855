import random

import numpy as np
import pytest
import torch

from detrex.utils.seeding import draw_seed, seed_everything, seeded


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seed_everything__same_position_same_draws():
    seed_everything(7, 3)
    first = draws()
    seed_everything(7, 4)
    second = draws()
    seed_everything(7, 3)
    assert draws() == first
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_seed_everything__negative_position_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        seed_everything(-1)


def test_seeded__leaves_the_generators_as_they_were():
    seed_everything(1)
    expected = draws()
    seed_everything(1)
    with seeded(5):
        inside = draws()
    assert draws() == expected != inside


def test_seeded__restores_after_an_exception():
    seed_everything(1)
    expected = draws()
    seed_everything(1)
    with pytest.raises(KeyError), seeded(5):
        raise KeyError
    assert draws() == expected


def test_draw_seed__fits_every_generator():
    seed = draw_seed()
    assert 0 <= seed < 2**31
    seed_everything(seed)
