"""Runs that are stopped, held up or killed: a command line over the stand-in detector.

    python -m tests.reference.signalled FOLDER [--resume] [--num-gpus N] [key=value ...]

Each rank writes a line for each of its steps into FOLDER/step<rank>s, and waits in the n-th step of
its process where FOLDER holds a file ``hold-step<rank>-<n>``; it asks itself to stop in the step
that ``--stop-at`` names, and takes ``--pace`` seconds for each. The main process writes a line,
first iteration and number of processes, into FOLDER/segments.
"""

import argparse
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from detectron2.utils import comm
from omegaconf import OmegaConf

from detrex.engine import Trainer, do_train, launch
from detrex.engine import train as of_train
from detrex.engine.command_line import exit_by_sentence
from detrex.engine.distributed import unwrap_ddp
from tests.reference.stand_in import StandIn, stand_in_config


class Watched(StandIn):
    """Tells of each step that it takes, and holds it up where it is told to."""

    def __init__(self, folder: str = "", stop_at: int = -1, pace: float = 0.0):
        super().__init__()
        self.folder, self.stop_at, self.pace = Path(folder), stop_at, pace

    def forward(self, batch):
        losses = super().forward(batch)
        kind = "step" if self.training else "eval"
        note = f"{kind}{comm.get_rank()}"
        with open(self.folder / f"{note}s", "a") as file:
            file.write(f"{self.calls} {os.getpid()}\n")
        if self.training and self.calls == self.stop_at:
            signal.raise_signal(signal.SIGUSR1)
        time.sleep(self.pace if self.training else 0)
        while (self.folder / f"hold-{note}-{self.calls}").exists():
            time.sleep(0.02)
        return losses


class NotedTrainer(Trainer):
    """Writes down where it starts."""

    def train(self, start_iter, max_iter):
        if comm.is_main_process():
            folder = unwrap_ddp(self.model).folder
            with open(folder / "segments", "a") as file:
                file.write(f"{start_iter} {comm.get_world_size()}\n")
        super().train(start_iter, max_iter)


def train(args):
    of_train.Trainer = NotedTrainer
    cfg = stand_in_config(str(args.folder / "run"), max_iter=8)
    cfg.train.checkpointer.period = 100
    cfg.model._target_ = Watched
    cfg.model.folder = str(args.folder)
    cfg.model.stop_at, cfg.model.pace = args.stop_at, args.pace
    cfg.merge_with(OmegaConf.from_dotlist(args.opts))
    do_train(args, cfg)


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=1800)
    parser.add_argument("--stop-at", type=int, default=-1)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("opts", nargs="*")
    args = parser.parse_intermixed_args(argv)
    seconds = timedelta(seconds=args.timeout)
    with exit_by_sentence():
        launch(train, args.num_gpus, args=(args,), timeout=seconds, device="cpu")


if __name__ == "__main__":
    main()
