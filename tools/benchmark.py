"""Time the parts of a run: training and evaluation without data, and data without a model.

    python tools/benchmark.py --task train --config-file CONFIG --num-gpus 8
    python tools/benchmark.py --task data_advanced --config-file CONFIG -n 50

Each step is timed after `--warmup` steps that are not, in every process; the main one prints.
"""

from detrex.threads import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported, which reads them once

import argparse
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig

from detrex.config import load_config, try_get_key
from detrex.config.validation import settle
from detrex.data.preparation import prepared_data
from detrex.engine import Trainer, apply_overrides, argument_parser, build_model, build_optimizer
from detrex.engine.distributed import wrap_ddp
from detrex.engine.evaluation import amp_dtype, build_loader
from detrex.engine.launch import launch
from detrex.errors import ConfigError, run_tool

_KEPT_BATCHES = 20


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


def do_train(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Time optimizer steps on batches that are kept in memory."""
    batches = _kept(_loader(cfg, "dataloader.train"), args)
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
    trainer.train(0, args.warmup + args.num_iters)
    _report("train", timer.seconds[args.warmup :], "step", len(batches[0]))


def do_eval(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Time inference on batches that are kept in memory."""
    batches = _kept(_loader(cfg, "dataloader.test"), args)
    model = build_model(cfg, seed=0).eval()

    def infer() -> Iterator[None]:
        with torch.no_grad():
            for batch in itertools.cycle(batches):
                model(batch)
                _wait_for_device()
                yield

    _report("eval", _seconds(infer(), args), "batch", len(batches[0]))


def do_data(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Time the batches of the training loader."""
    batches = iter(_loader(cfg, "dataloader.train"))
    size = len(next(batches))
    _report("data", _seconds(batches, args), "batch", size)


def do_data_advanced(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Time the training loader with fewer and fewer parts: workers, batches, the mapper alone."""
    for key in ("dataloader.train.dataset", "dataloader.train.mapper"):
        if try_get_key(cfg, key) is None:
            raise ConfigError(f"The config has no {key}, which is to be timed: use --task data.")
    node = cfg.dataloader.train
    with prepared_data(cfg):
        dataset, mapper = instantiate(node.dataset), instantiate(node.mapper)
        _report("records", _seconds(itertools.cycle(dataset), args), "record", 1)
        mapped = map(mapper, itertools.cycle(dataset))
        _report("mapper", _seconds(mapped, args), "picture", 1)
    for workers in sorted({0, int(node.get("num_workers", 0))}):
        node.num_workers = workers
        batches = iter(_loader(cfg, "dataloader.train"))
        size = len(next(batches))
        _report(f"{workers} workers", _seconds(batches, args), "batch", size)


TASKS: dict[str, Callable[[DictConfig, argparse.Namespace], None]] = {
    "train": do_train,
    "eval": do_eval,
    "data": do_data,
    "data_advanced": do_data_advanced,
}


def benchmark_parser() -> argparse.ArgumentParser:
    """The command line: that of ``tools/train_net.py``, and what to time."""
    parser = argument_parser()
    parser.description, parser.epilog = __doc__, None
    parser.add_argument("--task", required=True, choices=TASKS, help="what to time")
    parser.add_argument("-n", "--num-iters", default=100, type=int, help="timed steps (100)")
    parser.add_argument("--warmup", default=10, type=int, help="steps before them (10)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Time one task, in as many processes as asked."""
    args = benchmark_parser().parse_args(arguments)
    if not args.config_file or args.num_iters < 1 or args.warmup < 0:
        raise ConfigError("Name a --config-file, and give --num-iters from 1 and --warmup from 0.")
    cfg = load_run(args)
    machines = (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
    launch(run_task, *machines, (args,), device=str(cfg.train.device))


def load_run(args: argparse.Namespace) -> DictConfig:
    """Load the config of a command line, with defaults for what it leaves out."""
    cfg = load_config(args.config_file, args.trust)
    return settle(apply_overrides(cfg, args.opts or [], args.trust))


def run_task(args: argparse.Namespace) -> None:
    """Time one task in this process."""
    TASKS[args.task](load_run(args), args)


def _loader(cfg: DictConfig, key: str) -> Iterable[Any]:
    if try_get_key(cfg, key) is None:
        raise ConfigError(f"The config has no {key}, which is to be timed.")
    with prepared_data(cfg, train=key.endswith("train")):
        return build_loader(cfg, key)


def _kept(loader: Iterable[Any], args: argparse.Namespace) -> list[Any]:
    batches = list(itertools.islice(loader, min(_KEPT_BATCHES, args.num_iters)))
    if not batches:
        raise ConfigError("The data set is empty, so that there is nothing to time.")
    return batches


def _seconds(steps: Iterator[Any], args: argparse.Namespace) -> list[float]:
    for _ in itertools.islice(steps, args.warmup):
        pass
    clock = time.perf_counter
    times = [clock(), *(clock() for _ in itertools.islice(steps, args.num_iters))]
    return [end - start for start, end in itertools.pairwise(times)]


def _wait_for_device() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _report(what: str, seconds: Sequence[float], unit: str, pictures: int) -> None:
    if not comm.is_main_process():
        return
    times = torch.tensor(seconds, dtype=torch.float64)
    mean, median = times.mean().item(), times.median().item()
    print(
        f"{what:<14} {mean:.4f} s a {unit} (median {median:.4f}, greatest {times.max():.4f}), "
        f"{pictures / mean:.1f} pictures a second in each of {comm.get_world_size()} process(es)"
    )


if __name__ == "__main__":
    run_tool(main)
