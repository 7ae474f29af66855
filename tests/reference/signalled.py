"""Runs that are stopped, held up or killed: a command line over the stand-in detector.

    python -m tests.reference.signalled FOLDER [--resume] [--num-gpus N] [key=value ...]

Each rank writes a line for each of its steps into FOLDER/steps<rank>, and waits in a step where
FOLDER holds a file ``hold<rank>-<iteration>``.
"""

import argparse
import os
import time
from datetime import timedelta
from pathlib import Path

from detectron2.utils import comm
from omegaconf import OmegaConf

from detrex.engine import do_train, launch
from detrex.engine.command_line import exit_by_sentence
from tests.reference.stand_in import StandIn, stand_in_config


class Watched(StandIn):
    """Tells of each step that it takes, and holds it up where it is told to."""

    def __init__(self, folder: str = ""):
        super().__init__()
        self.folder = Path(folder)

    def forward(self, batch):
        losses = super().forward(batch)
        kind = "step" if self.training else "eval"
        note = f"{kind}{comm.get_rank()}"
        with open(self.folder / f"{note}s", "a") as file:
            file.write(f"{self.calls} {os.getpid()}\n")
        while (self.folder / f"hold-{note}-{self.calls}").exists():
            time.sleep(0.02)
        return losses


def train(args):
    cfg = stand_in_config(str(args.folder / "run"), max_iter=8)
    cfg.train.checkpointer.period = 100
    cfg.model._target_ = Watched
    cfg.model.folder = str(args.folder)
    cfg.merge_with(OmegaConf.from_dotlist(args.opts))
    do_train(args, cfg)


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=1800)
    parser.add_argument("opts", nargs="*")
    args = parser.parse_args(argv)
    seconds = timedelta(seconds=args.timeout)
    with exit_by_sentence():
        launch(train, args.num_gpus, args=(args,), timeout=seconds, device="cpu")


if __name__ == "__main__":
    main()
