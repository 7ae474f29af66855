"""A run of two seconds by the real command line, in a process that can be killed."""

import ctypes
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detrex.engine import run
from tests.faults.attempts import SUBREAPER, finalize, finalizers, status_of

CONFIG = """
from detectron2.config import LazyCall as L

from detrex.config import get_config
from tests.reference.tiny_dino import tiny_dino

train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").AdamW
dataloader = get_config("common/data/shapes.py").dataloader
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_12ep

model = L(tiny_dino)(embed_dim=16, layers=1, levels=3, queries=5, num_classes=3, dn_number=2)
optimizer.lr = 1e-3
dataloader.folder = "{folder}"
dataloader.train.total_batch_size = 2
dataloader.evaluator.output_dir = "${{train.output_dir}}"
train.device = "cpu"
train.seed = 7
train.max_iter = {steps}
train.eval_period = 8
train.log_period = 2
train.checkpointer.period = 3
train.checkpointer.max_to_keep = 2
train.model_ema.enabled = True
"""
STEPS, PERIOD, KEPT = 14, 3, 2
SLOW = 60
STREAMS = (".stdout", ".stderr")
_START = re.compile(r"Starting training from iteration (\d+)")
_STEP = re.compile(r" iter: (\d+)/")
_TIMES = re.compile(r"time|seconds")


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status or minus its signal, what it printed, what it left."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    orphans: bool = False

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def start(self) -> int:
        """The step that its loop began with, 0 where it did not begin."""
        return max((int(found) for found in _START.findall(self.text)), default=0)

    @property
    def done(self) -> int:
        """Steps that it is known to have done."""
        return max((int(found) for found in _STEP.findall(self.text)), default=0)

    @property
    def trained(self) -> bool:
        """Whether its loop had begun."""
        return _START.search(self.text) is not None


def train(
    config: Path,
    folder: Path,
    *options: str,
    before: Callable[[], object] = lambda: None,
    disturb: Callable[[int], object] = lambda pid: None,
    seconds: float = SLOW,
) -> Ended:
    """Run `tools/train_net.py`'s main function in a forked process, and wait for its end.

    Args:
        config: the config file.
        folder: the output directory.
        options: of the command line, each one word.
        before: called in the process, before the run.
        disturb: called in this process, with the other's number.
        seconds: after which it is killed.

    Returns:
        How it ended; code is `-SIGALRM` where it had to be killed.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    output = Path(f"run-{time.monotonic_ns()}").absolute()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        flags = [option for option in options if option.startswith("--")]
        rest = [option for option in options if not option.startswith("--")]
        argv = ["--config-file", str(config), *flags, f"train.output_dir={folder}", *rest]
        _be_the_run(argv, output, before)
    disturb(pid)
    code = _wait(pid, start + seconds)
    orphans = _wait_for_group(pid)
    files = [output.with_suffix(end) for end in STREAMS]
    texts = [file.read_text(errors="replace") if file.is_file() else "" for file in files]
    return Ended(code, *texts, time.monotonic() - start, orphans)


def _be_the_run(argv: list[str], output: Path, before: Callable[[], object]) -> None:
    status, inherited = 70, finalizers()
    try:
        os.setpgid(0, 0)
        for number, end in enumerate(STREAMS, 1):
            file = output.with_suffix(end)
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        fork_ranks()
        before()
        status = status_of(lambda: run(argv), output.with_suffix(".wrong"))
        finalize(inherited)
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fork_ranks() -> None:
    """Let a run's processes be forked from this one, which saves their imports."""
    start = torch.multiprocessing.start_processes

    def forked(*args: Any, start_method: str = "", **kwargs: Any) -> Any:
        return start(*args, start_method="fork", **kwargs)

    torch.multiprocessing.start_processes = forked


def _wait(pid: int, until: float) -> int:
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGALRM


def _wait_for_group(group: int, seconds: float = 20) -> bool:
    """Wait for the processes that a run started; tell whether some had to be killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(ChildProcessError):
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
    os.killpg(group, signal.SIGKILL)
    return True


def children(pid: int) -> list[int]:
    """List the processes that a process has started, the oldest first."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = file.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append((int(fields[19]), int(file.parent.name)))
    return [number for _, number in sorted(found)]


def metrics(folder: Path) -> list[str]:
    """Give the lines of metrics.json without times; one that is no JSON as it is."""
    file = folder / "metrics.json"
    return [_timeless(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _timeless(line: str) -> str:
    try:
        values = json.loads(line)
    except ValueError:
        return f"torn: {line}"
    return json.dumps({k: v for k, v in values.items() if not _TIMES.search(k)}, sort_keys=True)


def differing(one: Any, other: Any, name: str = "") -> list[str]:
    """List the places where two checkpoints differ, to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [name]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = list(dict.fromkeys([*one, *other]))
        missing = object()
        return [
            place
            for key in keys
            for place in differing(one.get(key, missing), other.get(key, missing), f"{name}.{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [name]
        pairs = enumerate(zip(one, other, strict=True))
        return [place for i, (a, b) in pairs for place in differing(a, b, f"{name}.{i}")]
    return [] if one == other else [name]


def state(folder: Path) -> dict[str, Any]:
    """Give what a finished run has learnt: weights, average, optimizer, iteration."""
    content = torch.load(folder / "model_final.pth", weights_only=False)
    return {
        "model": content["model"],
        "ema_state": content["ema_state"],
        "optimizer": content["trainer"]["optimizer"],
        "iteration": content["iteration"],
    }
