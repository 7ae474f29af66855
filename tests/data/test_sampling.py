"""The arithmetic against the plain loop, key by key."""

from itertools import islice

import numpy as np
import pytest

from detrex.data.sampling import BatchOrder, shuffled
from tests.reference.plain_loader import plain_keys

SIZES = [1, 7, 30, 53]
GROUPS = {
    "no groups": lambda size: None,
    "two": lambda size: np.random.default_rng(size).integers(0, 2, size).astype(np.uint8),
    "a rare one": lambda size: (np.arange(size) == size - 1).astype(np.uint8),
    "one": lambda size: np.zeros(size, np.uint8),
}


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 3), (2, 4), (5, 2)])
def test_batches__equal_the_plain_loop(size, world_size, batch_size, groups):
    groups = GROUPS[groups](size)
    for rank in range(world_size):
        options = {"batch_size": batch_size, "rank": rank, "world_size": world_size}
        options["groups"] = groups
        order = BatchOrder(size, **options)
        plain = list(islice(plain_keys(size, size, **options), 24))
        assert list(islice(order.batches(size), 24)) == plain
        for start in (1, 22):
            assert list(islice(order.batches(size, start), 2)) == plain[start : start + 2]


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 65537, 100_003])
def test_shuffled__a_smaller_type_takes_the_same_order(size):
    plain = np.random.default_rng([5, 3]).permutation(size)
    assert (shuffled(np.arange(size, dtype=np.int32), 5, 3) == plain).all()
    groups = (np.arange(size) % 3).astype(np.uint8)
    assert (shuffled(groups.copy(), 5, 3) == groups[plain]).all()


@pytest.mark.parametrize("grouping", [False, True])
@pytest.mark.parametrize("batches", [5, 13])
def test_batches__of_another_number_of_ranks_hold_the_same_images(grouping, batches):
    """But for those that wait for a batch of their group."""
    size, total = 101, 12
    groups = GROUPS["two"](size) if grouping else None

    def seen(world_size):
        options = {"batch_size": total // world_size, "world_size": world_size, "groups": groups}
        orders = [BatchOrder(size, rank=rank, **options) for rank in range(world_size)]
        return {
            position
            for order in orders
            for batch in islice(order.batches(3), batches)
            for position, _ in batch
        }

    for ranks in (2, 3, 6):
        left_out = seen(1) - seen(ranks)
        assert len(left_out) == len(seen(ranks) - seen(1)) < (2 * total if grouping else 1)
        assert len(seen(ranks)) == batches * total
