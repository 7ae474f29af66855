"""Which image comes when, without a list of them: whole epochs as arrays, batches by arithmetic.

    epoch: a permutation of the data set --rank takes every n-th--> its share --group by aspect
    ratio--> batches of (position, index), in the order in which their last images come

Positions count the images of one endless stream over all epochs and ranks.
"""

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

SampleKey = tuple[int, int]
"""``(position in the endless stream, index into the data set)``."""

EpochOrder = Callable[[int, int], np.ndarray]
"""Gives the indices of an epoch in their order, from ``(seed, epoch)``."""


def shuffled(values: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Bring values into the order of an epoch, in place.

    Args:
        values: one for each image, of any type.
        seed: the run's seed.
        epoch: counts from 0.

    Returns:
        The same array; the order depends on its length, the seed and the epoch alone, so that a
        shuffled ``arange`` says where each value went.
    """
    np.random.default_rng([seed, epoch]).shuffle(values)
    return values


class BatchOrder:
    """The batches of one rank, as keys.

    An epoch costs 4 bytes for each image of the data set while it is shuffled, and 8 for each of
    this rank's share while it lasts (a moment 8 more while it is grouped; all of it doubled from
    2**31 images on). To start in the midst costs arithmetic and the permutations of that epoch and
    the one before; with groups and several ranks, whose shares of a group vary, the groups of all
    epochs before are shuffled and counted.

    Args:
        size: the number of images, at least 1.
        batch_size: images in a batch of this rank.
        rank: this process among ``world_size``.
        world_size: number of processes that share each epoch.
        groups: ``(size,)``, uint8; a batch holds images of one group only. None for one group.
        epoch_order: gives an epoch's order in the place of a permutation of everything.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        groups: np.ndarray | None = None,
        epoch_order: EpochOrder | None = None,
    ) -> None:
        self.size, self.batch_size, self.rank, self.world_size = size, batch_size, rank, world_size
        self.groups = groups
        self._epoch_order = epoch_order
        self._type = np.int32 if size < 2**31 else np.int64
        self._kinds = 1 if groups is None else int(groups.max()) + 1

    def batches(self, seed: int, start: int = 0) -> Iterator[list[SampleKey]]:
        """Yield the keys of every batch of this rank, without end.

        Args:
            seed: the run's seed.
            start: batches to pass over.

        Yields:
            ``batch_size`` keys ``(position, index)``.
        """
        first, totals = self._beginning(start, seed)
        passed = self._filled(totals)
        waiting = self._waiting(first, seed, totals % self.batch_size)
        for epoch in count(first):
            items, members, order = self._epoch(epoch, seed, waiting)
            for group, place in order[max(0, start - passed) :]:
                batch = members[group][place * self.batch_size : (place + 1) * self.batch_size]
                yield self._keys(batch, epoch, items, waiting)
            passed += len(order)
            rest = [part[len(part) // self.batch_size * self.batch_size :] for part in members]
            waiting = self._keys(np.sort(np.concatenate(rest)), epoch, items, waiting)
            del items, members, order  # before the next epoch's come

    def _epoch(
        self, epoch: int, seed: int, waiting: list[SampleKey]
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Group the images that wait and this rank's share of an epoch, numbered in this order.

        Returns:
            The share's indices; for each group the numbers of its images; for each batch ``(group,
            place within it)``, in the order in which they are filled.
        """
        items = self._share(epoch, seed)
        total = len(waiting) + len(items)
        if self.groups is None:
            members = [np.arange(total, dtype=self._type)]
        else:
            first = np.array([self.groups[index] for _, index in waiting], np.uint8)
            kinds = np.concatenate([first, self.groups[items]])
            members = [np.flatnonzero(kinds == k).astype(self._type) for k in range(self._kinds)]
        last = [part[self.batch_size - 1 :: self.batch_size] for part in members]
        order = np.concatenate(
            [
                np.stack([np.full(len(ends), group), np.arange(len(ends))], axis=1)
                for group, ends in enumerate(last)
            ]
        )
        return items, members, order[np.argsort(np.concatenate(last))]

    def _keys(
        self, numbers: np.ndarray, epoch: int, items: np.ndarray, waiting: list[SampleKey]
    ) -> list[SampleKey]:
        """The keys of images by their numbers, of which those that wait come first."""
        first = epoch * self.size + self._offset(epoch)
        numbered = (int(number) - len(waiting) for number in numbers)
        return [
            waiting[i] if i < 0 else (first + i * self.world_size, int(items[i])) for i in numbered
        ]

    def _offset(self, epoch: int) -> int:
        """The place within an epoch of this rank's first image."""
        return (self.rank - epoch * self.size) % self.world_size

    def _share(self, epoch: int, seed: int) -> np.ndarray:
        """The indices of this rank's images of an epoch, in their order."""
        if self._epoch_order is None:
            whole = shuffled(np.arange(self.size, dtype=self._type), seed, epoch)
        else:
            whole = self._epoch_order(seed, epoch)
        return whole[self._offset(epoch) :: self.world_size].copy()

    def _counts(self, epoch: int, seed: int) -> np.ndarray:
        """How many images of each group this rank has in an epoch, where there are groups."""
        assert self.groups is not None
        if self._epoch_order is None:
            whole = shuffled(self.groups.copy(), seed, epoch)
        else:
            whole = self.groups[self._epoch_order(seed, epoch)]
        return np.bincount(whole[self._offset(epoch) :: self.world_size], minlength=self._kinds)

    def _totals(self, epochs: int) -> np.ndarray:
        """How many images of each group this rank has had, unless there are groups and ranks."""
        if self.groups is None:
            return np.array([len(range(self.rank, epochs * self.size, self.world_size))])
        return epochs * np.bincount(self.groups, minlength=self._kinds)

    def _filled(self, totals: np.ndarray) -> int:
        return int((totals // self.batch_size).sum())

    def _beginning(self, batch: int, seed: int) -> tuple[int, np.ndarray]:
        """The epoch in which a batch is filled, and the images of each group that came before."""
        varies = self.groups is not None and self.world_size > 1
        epoch = 0 if varies else batch * self.batch_size * self.world_size // self.size
        totals = self._totals(epoch)
        while True:
            after = totals + self._counts(epoch, seed) if varies else self._totals(epoch + 1)
            if self._filled(after) > batch:
                return epoch, totals
            epoch, totals = epoch + 1, after

    def _waiting(self, epoch: int, seed: int, wanted: np.ndarray) -> list[SampleKey]:
        """The keys of the images that are in no full batch when an epoch begins.

        Args:
            epoch: the epoch.
            seed: the run's seed.
            wanted: how many there are of each group: the last that came.
        """
        waiting: list[SampleKey] = []
        while wanted.any():
            epoch -= 1
            items, members, _ = self._epoch(epoch, seed, [])
            last = [part[max(0, len(part) - n) :] for part, n in zip(members, wanted, strict=True)]
            waiting = self._keys(np.sort(np.concatenate(last)), epoch, items, []) + waiting
            wanted = wanted - [len(part) for part in last]
        return waiting
