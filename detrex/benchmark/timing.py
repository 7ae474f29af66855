"""The parts of a config timed: training and evaluation without data, and data without a model.

Each step is timed after some that are not, in every process.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase
from omegaconf import DictConfig

from detrex.config import try_get_key
from detrex.data.preparation import prepared_data
from detrex.engine import Trainer, build_model, build_optimizer
from detrex.engine.distributed import wrap_ddp
from detrex.engine.evaluation import amp_dtype, build_loader
from detrex.errors import ConfigError

_KEPT_BATCHES = 20


@dataclass(frozen=True)
class Steps:
    """How many steps are taken.

    Attributes:
        timed: from 1.
        warmup: before them, from 0.
    """

    timed: int = 100
    warmup: int = 10


@dataclass(frozen=True)
class Timing:
    """The times of one part.

    Attributes:
        part: what was timed.
        seconds: of each step, in this process.
        unit: what a step is.
        pictures: in one step.
    """

    part: str
    seconds: Sequence[float]
    unit: str
    pictures: int

    def text(self, processes: int = 1) -> str:
        """Lay it out in one line.

        Args:
            processes: that did the same at once.
        """
        times = torch.tensor(self.seconds, dtype=torch.float64)
        mean, median = times.mean().item(), times.median().item()
        return (
            f"{self.part:<14} {mean:.4f} s a {self.unit} (median {median:.4f}, greatest "
            f"{times.max():.4f}), {self.pictures / mean:.1f} pictures a second in each of "
            f"{processes} process(es)"
        )


class StepTimer(HookBase):
    """Times each step of a trainer until the device has done it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def before_step(self) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Stop the clock."""
        _wait_for_device()
        self.seconds.append(time.perf_counter() - self._start)


def time_training(cfg: DictConfig, steps: Steps) -> Iterator[Timing]:
    """Time optimizer steps on batches that are kept in memory.

    Args:
        cfg: a whole config, with defaults for what it leaves out.
        steps: how many.

    Yields:
        The times, part by part.

    Raises:
        ConfigError: a part of the config that is to be timed is missing, or there are no data.
    """
    batches = _kept(_loader(cfg, "dataloader.train"), steps)
    model = build_model(cfg, seed=0)
    device = next(model.parameters()).device
    trainer = Trainer(
        wrap_ddp(model, device, try_get_key(cfg, "train.ddp", default={})),
        itertools.cycle(batches),
        build_optimizer(cfg, model),
        amp=bool(try_get_key(cfg, "train.amp.enabled", default=False)),
        amp_dtype=amp_dtype(cfg),
    )
    timer = StepTimer()
    trainer.register_hooks([timer])
    trainer.train(0, steps.warmup + steps.timed)
    yield Timing("train", timer.seconds[steps.warmup :], "step", len(batches[0]))


def time_evaluation(cfg: DictConfig, steps: Steps) -> Iterator[Timing]:
    """Time inference on batches that are kept in memory; see `time_training`."""
    batches = _kept(_loader(cfg, "dataloader.test"), steps)
    model = build_model(cfg, seed=0).eval()

    def infer() -> Iterator[None]:
        with torch.no_grad():
            for batch in itertools.cycle(batches):
                model(batch)
                _wait_for_device()
                yield

    yield Timing("eval", seconds_of(infer(), steps), "batch", len(batches[0]))


def time_loading(cfg: DictConfig, steps: Steps) -> Iterator[Timing]:
    """Time the batches of the training loader; see `time_training`."""
    batches = iter(_loader(cfg, "dataloader.train"))
    size = len(next(batches))
    yield Timing("data", seconds_of(batches, steps), "batch", size)


def time_loading_by_parts(cfg: DictConfig, steps: Steps) -> Iterator[Timing]:
    """Time records, the mapper, and batches without and with workers; see `time_training`."""
    for key in ("dataloader.train.dataset", "dataloader.train.mapper"):
        if try_get_key(cfg, key) is None:
            raise ConfigError(f"The config has no {key}, which is to be timed: time data instead.")
    node = cfg.dataloader.train
    with prepared_data(cfg):
        dataset, mapper = instantiate(node.dataset), instantiate(node.mapper)
        yield Timing("records", seconds_of(itertools.cycle(dataset), steps), "record", 1)
        mapped = map(mapper, itertools.cycle(dataset))
        yield Timing("mapper", seconds_of(mapped, steps), "picture", 1)
    for workers in sorted({0, int(node.get("num_workers", 0))}):
        node.num_workers = workers
        batches = iter(_loader(cfg, "dataloader.train"))
        size = len(next(batches))
        yield Timing(f"{workers} workers", seconds_of(batches, steps), "batch", size)


TASKS: dict[str, Callable[[DictConfig, Steps], Iterator[Timing]]] = {
    "train": time_training,
    "eval": time_evaluation,
    "data": time_loading,
    "data_advanced": time_loading_by_parts,
}


def seconds_of(source: Iterator[Any], steps: Steps) -> list[float]:
    """Time each step of an iterator.

    Args:
        source: gives one thing a step, and more of them than are asked for.
        steps: how many.

    Returns:
        Seconds of each that counts.
    """
    for _ in itertools.islice(source, steps.warmup):
        pass
    clock = time.perf_counter
    times = [clock(), *(clock() for _ in itertools.islice(source, steps.timed))]
    return [end - start for start, end in itertools.pairwise(times)]


def _loader(cfg: DictConfig, key: str) -> Iterable[Any]:
    if try_get_key(cfg, key) is None:
        raise ConfigError(f"The config has no {key}, which is to be timed.")
    with prepared_data(cfg, train=key.endswith("train")):
        return build_loader(cfg, key)


def _kept(loader: Iterable[Any], steps: Steps) -> list[Any]:
    batches = list(itertools.islice(loader, min(_KEPT_BATCHES, steps.timed)))
    if not batches:
        raise ConfigError("The data set is empty, so that there is nothing to time.")
    return batches


def _wait_for_device() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
