"""Runs of several processes, one of which is lost, stuck, wrong, or asked to stop.

All end in seconds, by a sentence: what is waited for has bounds.
"""

import functools
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch.utils.data import get_worker_info

from detrex.data import DetrDatasetMapper
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.engine import Trainer
from detrex.errors import DataError
from tests.faults.kills import INTERRUPTED, REQUEUE
from tests.faults.tiny_run import CONFIG, train
from tests.faults.trials import Trial, Wrong, shared_folder

KIND = "ranks"
TWO = ("--num-gpus=2", "train.eval_period=0", "train.timeouts.collective=5")
WORKERS = ("dataloader.train.num_workers=1", "train.timeouts.data=3")
STEPS = 6
LONG = 100_000


def prepare() -> None:
    """Write the data and the config."""
    for seed, (part, count) in enumerate((("train", 6), ("val", 2))):
        write_shapes_dataset(Path(part), count, image_size=(64, 64), seed=seed, max_objects=2)
    Path("config.py").write_text(CONFIG.format(folder=Path.cwd(), steps=STEPS))


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give what can happen to a rank, a worker or a machine, then the same at other steps."""
    rng = random.Random(seed)
    fixed = list(FIXED.items())
    acts = list(ACTS)
    for index in range(count):
        turn, place = divmod(index, len(acts) + len(fixed))
        if place < len(acts):
            name, rank, step = acts[place], rng.randrange(2), rng.randrange(STEPS - 1)
            run = functools.partial(_in_a_step, name, rank, step)
            name = f"{name}, rank {rank}, step {step}"
        else:
            name, run = fixed[place - len(acts)]
        yield Trial(KIND, f"{name} ({turn})", run, "sentence", seconds=180)


def _end(ended: Any, code: int = 1) -> int:
    """End this trial as a run has ended, if it was with that status."""
    if ended.code != code or ended.orphans:
        sys.stderr.write(ended.text[-3000:])
        raise Wrong(f"ended with {ended.code}, orphans: {ended.orphans}, not with {code}")
    Path("out/run.lock").unlink(missing_ok=True)  # of one that was killed; the next run takes it
    shown = ended.stderr.replace("e" * LONG, "e ... e")
    sys.stderr.write(shown)
    return code


def _run(*options: str, **keywords: Any) -> Any:
    return train(shared_folder(KIND) / "config.py", Path("out"), *options, seconds=150, **keywords)


def _at(rank: int, step: int, act: Callable[[Any], object]) -> None:
    """Let a rank act before a step."""
    run_step = Trainer.run_step

    def patched(self: Trainer) -> None:
        if self.iter == step and comm.get_rank() == rank:
            act(self)
        run_step(self)

    Trainer.run_step = patched  # type: ignore[method-assign]


def _signal(number: int) -> Callable[[Any], object]:
    return lambda _: os.kill(os.getpid(), number)


def _raise(text: str) -> Callable[[Any], object]:
    def act(_: Any) -> None:
        raise DataError(text)

    return act


def _spoil(trainer: Any) -> None:
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.fill_(float("nan"))


def _another_loss(trainer: Any) -> None:
    losses_of = trainer._losses_of
    trainer._losses_of = lambda batch: {**losses_of(batch), "loss_extra": torch.zeros(())}


ACTS: dict[str, tuple[Callable[[Any], object], int]] = {
    "killed": (_signal(signal.SIGKILL), 1),
    "stopped": (_signal(signal.SIGSTOP), 1),
    "asked to stop": (_signal(signal.SIGTERM), REQUEUE),
    "ends": (lambda _: os._exit(3), 1),
    "an error": (_raise("the annotations are of another data set"), 1),
    "an error of 100 KB": (_raise("e" * LONG), 1),
    "sleeps": (lambda _: time.sleep(1000), 1),
    "weights are NaN": (_spoil, 1),
    "other losses": (_another_loss, 1),
    "asked by SIGUSR1": (_signal(signal.SIGUSR1), REQUEUE),
}


def _in_a_step(name: str, rank: int, step: int) -> int:
    act, code = ACTS[name]
    return _end(_run(*TWO, before=functools.partial(_at, rank, step, act)), code)


def _parent_gets(number: int, code: int) -> int:
    """Send a signal to the process that has started the ranks, once they train."""

    def send(pid: int) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not Path("out/metrics.json").is_file():
            time.sleep(0.05)
        os.kill(pid, number)

    slowly = functools.partial(_at, 0, 3, lambda _: time.sleep(2))
    return _end(_run(*TWO, disturb=send, before=slowly), code)


def _alone(*options: str, listening: bool = False) -> int:
    """Run where others do not come, or where somebody else listens."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        address = f"--dist-url=tcp://127.0.0.1:{held.getsockname()[1]}"
        if listening:
            held.listen()
        else:
            held.close()
        return _end(_run(*options, address, "train.timeouts.collective=3"))


def _worker_does(act: Callable[[Any], object]) -> int:
    """Let a loader's worker act on its second picture."""

    def before() -> None:
        call, seen = DetrDatasetMapper.__call__, []

        def patched(self: Any, record: Any) -> Any:
            seen.append(record)
            if get_worker_info() is not None and len(seen) > 1:
                act(None)
            return call(self, record)

        DetrDatasetMapper.__call__ = patched  # type: ignore[method-assign]

    return _end(_run(*WORKERS, before=before))


def _fifo(*options: str) -> int:
    """Train on pictures one of which is a pipe that nobody writes to."""
    data = Path("data")
    shutil.copytree(shared_folder(KIND), data, ignore=shutil.ignore_patterns("config.py"))
    picture = sorted((data / "train" / "images").iterdir())[0]
    picture.unlink()
    os.mkfifo(picture)
    return _end(_run(f"dataloader.folder={data}", "train.timeouts.data=3", *options))


FIXED: dict[str, Callable[[], int]] = {
    "parent, SIGTERM": lambda: _parent_gets(signal.SIGTERM, REQUEUE),
    "parent, SIGINT": lambda: _parent_gets(signal.SIGINT, INTERRUPTED),
    "machine 1 is absent": lambda: _alone("--num-machines=2"),
    "machine 0 is absent": lambda: _alone("--num-machines=2", "--machine-rank=1"),
    "another server at the address": lambda: _alone("--num-gpus=2", listening=True),
    "worker stopped": lambda: _worker_does(_signal(signal.SIGSTOP)),
    "worker killed": lambda: _worker_does(_signal(signal.SIGKILL)),
    "worker sleeps": lambda: _worker_does(lambda _: time.sleep(1000)),
    "a pipe for a picture": _fifo,
    "a pipe for a picture, read by a worker": lambda: _fifo("dataloader.train.num_workers=1"),
}
