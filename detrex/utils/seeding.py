"""Randomness as a function of position: what step ``i`` draws depends on ``(seed, i)`` alone.

A run that is interrupted and resumed then draws exactly what an undisturbed run would have drawn,
without any generator's state in the checkpoint.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(*position: int) -> None:
    """Seed Python's, numpy's and torch's generators (on every device) from some integers.

    Args:
        position: non-negative integers that name a point of the run, such as ``(seed, iteration,
            rank)``. Near positions give unrelated streams (``numpy.random.SeedSequence``).

    Raises:
        ValueError: an integer is negative.
    """
    python_seed, numpy_seed, torch_seed = (
        int(word) for word in np.random.SeedSequence(position).generate_state(3)
    )
    random.seed(python_seed)
    np.random.seed(numpy_seed)
    torch.manual_seed(torch_seed)


@contextmanager
def seeded(*position: int) -> Iterator[None]:
    """Run a block under :func:`seed_everything`, and put the CPU generators back afterwards.

    Args:
        position: see :func:`seed_everything`.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        seed_everything(*position)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def draw_seed() -> int:
    """Draw a fresh seed from the operating system, in ``[0, 2**31)``."""
    return random.SystemRandom().randrange(2**31)
