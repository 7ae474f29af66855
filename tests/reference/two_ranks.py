"""What tests run in two processes: importable by name, so that spawned processes find it."""

import argparse
import hashlib
from pathlib import Path

import torch
from detectron2.utils import comm
from torch import nn

from detrex.engine import do_train
from detrex.engine.distributed import broadcast_from_main, resolve_device
from detrex.errors import ConfigError, NonFiniteLossError
from detrex.modeling.dino import DINO
from tests.reference.stand_in import StandIn, stand_in_config
from tests.reference.two_rank_folders import folder_runs

RUN = argparse.Namespace(resume=False)


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


class FingerprintedDINO(DINO):
    """Leaves a fingerprint of its weights, by rank, in the folder `fingerprints` when evaluated."""

    def eval(self):
        folder = Path("fingerprints")
        folder.mkdir(exist_ok=True)
        (folder / f"rank{comm.get_rank()}.txt").write_text(fingerprint(self))
        return super().eval()


class NanOnSecondRank(StandIn):
    def forward(self, batch):
        self.nan_at = 2 if comm.get_rank() == 1 else -1
        return super().forward(batch)


def stand_in_runs(folder: str) -> None:
    """Train, train into a NaN on one rank, and raise; each rank writes down what it saw."""
    rank = comm.get_rank()
    lines = [f"device {resolve_device('cpu')}", f"told {broadcast_from_main(f'by rank {rank}')}"]

    cfg = stand_in_config(f"{folder}/run", max_iter=3, accumulate_steps=2, seed=-1)
    cfg.model.dropout = 0.0
    metrics = do_train(RUN, cfg)
    lines.append(f"metrics {metrics}")

    cfg = stand_in_config(f"{folder}/nan")
    cfg.model._target_ = NanOnSecondRank
    try:
        do_train(RUN, cfg)
    except NonFiniteLossError as error:
        lines.append(f"stopped {error}")
    lines += folder_runs(folder)
    Path(folder, f"rank{rank}.txt").write_text("\n".join(lines))
    comm.synchronize()
    raise ConfigError(f"raised on both ranks of {torch.distributed.get_backend()}")
