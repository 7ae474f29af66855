"""The order of the training batches as one plain loop over every image, and a loader on it.

Slow and large on purpose: what `detrex.data.sampling` computes must equal it in every key.
"""

from itertools import count, islice

import numpy as np
import torch.utils.data
from detectron2.data import DatasetFromList


def stream(size, seed):
    """Every position with its index: one permutation of the data set after another."""
    for epoch in count():
        order = np.random.default_rng([seed, epoch]).permutation(size)
        yield from enumerate(order.tolist(), start=epoch * size)


def plain_keys(size, seed, *, batch_size, rank=0, world_size=1, groups=None):
    """The keys of every batch of a rank: it takes every n-th image, and yields what is full."""
    buckets = {}
    for position, index in islice(stream(size, seed), rank, None, world_size):
        group = 0 if groups is None else int(groups[index])
        bucket = buckets.setdefault(group, [])
        bucket.append((position, index))
        if len(bucket) == batch_size:
            yield buckets.pop(group)


class PlainLoader:
    """Holds the records itself, and passes over what was seen before, image by image."""

    def __init__(self, dataset, mapper, *, num_workers=0, aspect_ratio_grouping=True, **options):
        wide = [sample["width"] > sample["height"] for sample in dataset]
        self.groups = np.array(wide, np.uint8) if aspect_ratio_grouping else None
        self.samples = DatasetFromList([dict(sample) for sample in dataset], copy=False)
        self.mapper, self.num_workers, self.options = mapper, num_workers, options
        self.start, self.seed = 0, 0

    def seek(self, batch, seed):
        self.start, self.seed = batch, seed

    def __iter__(self):
        keys = plain_keys(len(self.samples), self.seed, groups=self.groups, **self.options)
        return iter(
            torch.utils.data.DataLoader(
                _Mapped(self.samples, self.mapper),
                batch_sampler=islice(keys, self.start, None),
                num_workers=self.num_workers,
                collate_fn=list,
            )
        )


class _Mapped(torch.utils.data.Dataset):
    def __init__(self, samples, mapper):
        self.samples, self.mapper = samples, mapper

    def __getitem__(self, key):
        return self.mapper(self.samples[key[1]])
