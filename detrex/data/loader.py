"""Training batches that can be resumed: batch ``b`` is a function of ``(seed, rank, b)``.

    batches of (position, index), by `detrex.data.sampling` --worker: seed by position, map--> list
    of dicts

**Where a run goes on.** ``seek(batch, seed)`` counts batches of the whole run: batch ``b`` is the
``total_batch_size`` images that all ranks take in their ``b``-th step (an iteration has several,
with ``train.accumulate_steps``). On the same number of ranks, a run going on at batch ``b`` sees
what an undisturbed one sees. On another number of ranks and the same ``total_batch_size`` it sees
what an undisturbed run of that many ranks would see from batch ``b`` on:

* without ``aspect_ratio_grouping``, the first ``b`` batches of any number of ranks hold the same
  images, the first ``b * total_batch_size`` of the stream: none is seen twice or left out;
* with it, images wait in each rank for a batch of their group, fewer than ``total_batch_size`` in
  all ranks: a change leaves out fewer than twice that many images of the epoch, and shows as many
  twice.

What augmentation makes of an image depends on ``(seed, position)`` alone, whatever rank maps it.
What `seek` costs is said in `detrex.data.sampling`: nothing is replayed.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch.utils.data
from detectron2.utils import comm
from detectron2.utils.serialize import PicklableWrapper

from detrex.data.bad_pictures import BadPicture
from detrex.data.sampling import BatchOrder, SampleKey
from detrex.data.stored_records import UNKNOWN, StoredRecords, aspects_of, store
from detrex.errors import ConfigError, PictureError
from detrex.threads import use_one_thread
from detrex.utils.seeding import seeded

Sample = dict[str, Any]
Records = Sequence[Mapping[str, Any]] | torch.utils.data.Dataset[Any]
_MAX_REDRAWS = 100


class TrainLoader:
    """An endless iterable over batches of mapped dataset dicts.

    Two loaders with the same dataset, mapper, batch size and number of ranks give equal batches for
    the same ``seek``, whatever ``num_workers`` is. Each epoch is a permutation of the dataset and
    is shared out between the ranks without overlap.

    Args:
        dataset: the dataset dicts, in detectron2's format. They are copied by
            `detrex.data.stored_records.store`; a `torch.utils.data.Dataset` is read where it is.
        mapper: turns a copy of a dataset dict into a sample, or into None to have another one
            drawn. A `BadPicture` has another one drawn too, and comes along in the batch, beside
            the ``batch_size`` samples.
        batch_size: samples per batch **of this process**.
        num_workers: processes that map; 0 maps in the caller's process and leaves its generators as
            they were.
        aspect_ratio_grouping: put landscape and portrait images into different batches, so that
            they need less padding.
        rank: this process among ``world_size``.
        world_size: number of processes that share the dataset.
        pin_memory: put tensors into memory that CUDA copies from while the processor goes on.
        prefetch_factor: batches that each worker prepares ahead; None for PyTorch's 2.
        persistent_workers: as for PyTorch's loader; the batches have no end, so that the workers
            stay as long as an iterator in any case.
        timeout: seconds to wait for a batch of the workers, 0 for no bound.
    """

    def __init__(
        self,
        dataset: Records,
        mapper: Callable[[Sample], Sample | None],
        *,
        batch_size: int,
        num_workers: int = 0,
        aspect_ratio_grouping: bool = True,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        timeout: float = 0,
    ) -> None:
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.prefetch_factor, self.persistent_workers = prefetch_factor, persistent_workers
        self.timeout = timeout
        whole: Any = dataset
        is_dataset = isinstance(whole, torch.utils.data.Dataset)
        self._samples: Any = whole if is_dataset else store(whole)
        self.num_samples = len(self._samples)
        self._order = BatchOrder(
            self.num_samples,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            groups=_aspect_groups(self._samples) if aspect_ratio_grouping else None,
            epoch_order=getattr(self._samples, "epoch_order", None),
        )
        self._mapper = PicklableWrapper(mapper)
        self._batch, self._seed = 0, 0

    def seek(self, batch: int, seed: int) -> None:
        """Make the next ``iter()`` start at a batch; iterators that are under way are not touched.

        Args:
            batch: number of batches of the run to pass over, at least 0; see the module's text for
                another number of ranks.
            seed: the run's seed, at least 0, equal on all ranks.

        Raises:
            ValueError: one of them is negative.
        """
        if batch < 0 or seed < 0:
            raise ValueError(
                f"seek takes a batch and a seed of at least 0, got batch={batch} and seed={seed}."
            )
        self._batch, self._seed = int(batch), int(seed)

    def __iter__(self) -> Iterator[list[Sample]]:
        """Yield batches from where :meth:`seek` pointed; never ends."""
        loader = torch.utils.data.DataLoader(
            _MappedSamples(self._samples, self._mapper, self._seed),
            batch_sampler=_Resumed(self._order, self._batch, self._seed),
            num_workers=self.num_workers,
            collate_fn=_joined,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch_factor,
            persistent_workers=self.persistent_workers,
            timeout=self.timeout if self.num_workers else 0,
            worker_init_fn=use_one_thread,
        )
        return iter(loader)

    def sample_keys(self, seed: int) -> Iterator[list[SampleKey]]:
        """Yield the keys of every batch of this rank from the first on, without mapping anything.

        Args:
            seed: the run's seed.

        Yields:
            ``batch_size`` keys ``(position, index)``.
        """
        return self._order.batches(seed)


class _Resumed:
    """The batch sampler: a rank's keys from one batch on."""

    def __init__(self, order: BatchOrder, batch: int, seed: int) -> None:
        self.order, self.batch, self.seed = order, batch, seed

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self.order.batches(self.seed, self.batch)


class _MappedSamples(torch.utils.data.Dataset[Any]):
    """The mapped sample of a key, with randomness that depends on the key's position alone."""

    def __init__(self, samples: Any, mapper: Callable[..., Any], seed: int) -> None:
        self.samples, self.mapper, self.seed = samples, mapper, seed

    def __getitem__(self, key: SampleKey) -> Sequence[Sample]:
        """The sample, after the bad pictures that were drawn before it."""
        position, index = key
        drawn: list[BadPicture] = []
        with seeded(self.seed, position):
            for _ in range(_MAX_REDRAWS):
                record = self.samples[index]
                if not isinstance(self.samples, StoredRecords):  # whose records are fresh
                    record = copy.deepcopy(record)
                sample = self.mapper(record)
                if isinstance(sample, BadPicture):
                    drawn.append(sample)
                elif sample is not None:
                    return [*drawn, sample]
                index = np.random.randint(len(self.samples))
        if drawn:
            raise PictureError(
                f"none of {_MAX_REDRAWS} pictures in a row could be used; the last one: "
                f"{drawn[-1].error}"
            )
        raise ConfigError(
            f"dataloader.train.mapper returned None for {_MAX_REDRAWS} dataset dicts in a row, "
            "expected a sample for most: check the dataset's images and annotations."
        )


def _joined(drawn: list[Sequence[Sample]]) -> list[Sample]:
    return [sample for samples in drawn for sample in samples]


def build_train_loader(
    dataset: Records,
    mapper: Callable[[Sample], Sample | None],
    *,
    total_batch_size: int,
    num_workers: int = 0,
    aspect_ratio_grouping: bool = True,
    pin_memory: bool | None = None,
    prefetch_factor: int | None = None,
    persistent_workers: bool | None = None,
) -> TrainLoader:
    """Build the resumable training loader of this process.

    The keywords mean what they mean in ``detectron2.data.build_detection_train_loader``. What is
    different: batches depend on ``(seed, rank, batch number)`` only, so that ``seek(batch, seed)``
    continues an interrupted run exactly.

    Args:
        dataset: a list of dicts in detectron2's dataset format.
        mapper: a callable such as :class:`detrex.data.DetrDatasetMapper`; where it returns None,
            another dict is drawn.
        total_batch_size: images per iteration over all processes; a multiple of their number.
        num_workers: processes per training process that read and map images.
        aspect_ratio_grouping: put landscape and portrait images into different batches; the
            dicts then need ``width`` and ``height``.
        pin_memory: put tensors into memory that CUDA copies from while the processor goes on; None
            does so where there are workers and a GPU.
        prefetch_factor: batches that each worker prepares ahead; None for PyTorch's 2.
        persistent_workers: None or True; the batches have no end, so that the workers stay.

    Returns:
        An endless iterable over lists of ``total_batch_size / world_size`` mapped dicts.

    Raises:
        ConfigError: the dataset is empty, the batch does not divide among the processes, grouping
            is asked for and a dict has no size, or something is asked of workers where there are
            none.
    """
    world_size = comm.get_world_size()
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise ConfigError(
            "dataloader.train.dataset is empty, expected at least one image: check its annotations "
            "(images without objects are left out unless filter_empty=False)."
        )
    if total_batch_size < 1 or total_batch_size % world_size:
        raise ConfigError(
            f"dataloader.train.total_batch_size={total_batch_size} cannot be shared by "
            f"{world_size} process(es): choose a positive multiple of {world_size}."
        )
    for name, value in (
        ("prefetch_factor", prefetch_factor),
        ("persistent_workers", persistent_workers),
    ):
        if value and not num_workers:
            raise ConfigError(
                f"dataloader.train.{name}={value} is asked of workers, and num_workers is 0: set "
                f"num_workers to 1 or more, or {name}=null."
            )
    return TrainLoader(
        dataset,
        mapper,
        batch_size=total_batch_size // world_size,
        num_workers=num_workers,
        aspect_ratio_grouping=aspect_ratio_grouping,
        rank=comm.get_rank(),
        world_size=world_size,
        pin_memory=num_workers > 0 and torch.cuda.is_available()
        if pin_memory is None
        else pin_memory,
        prefetch_factor=prefetch_factor,
        persistent_workers=bool(persistent_workers),
    )


def _aspect_groups(records: Any) -> np.ndarray:
    """1 for images that are wider than high, else 0; one byte an image."""
    aspects = aspects_of(records)
    unknown = np.flatnonzero(aspects == UNKNOWN)
    if len(unknown):
        record = records[int(unknown[0])]
        missing = next((key for key in ("width", "height") if key not in record), "usable size")
        raise ConfigError(
            "dataloader.train.aspect_ratio_grouping=True needs width and height in every dataset "
            f"dict, but {len(unknown)} of {len(aspects)}, first number {unknown[0]}, have no "
            f"{missing!r}: add it or set aspect_ratio_grouping=False."
        )
    return aspects
