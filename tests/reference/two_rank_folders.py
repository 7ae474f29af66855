"""What two ranks hear where the folder of their run is in use, full or damaged."""

import errno
import json
import os
from pathlib import Path

import torch
from detectron2.utils import comm

from detrex.engine import do_train
from detrex.errors import DetrexError
from tests.reference.runs import FRESH, RESUME, config


def folder_runs(folder: str) -> list[str]:
    """Run into each mistake in turn, and give what this rank heard."""
    heard = []

    def attempt(args, cfg):
        try:
            do_train(args, cfg)
        except DetrexError as error:
            heard.append(f"{type(error).__name__}: {error}")
        else:
            heard.append("well")
        comm.synchronize()

    place = Path(folder, "shared")
    place.mkdir(exist_ok=True)
    if comm.is_main_process():
        (place / "run.lock").write_text(json.dumps({"host": "node7", "pid": 1, "since": "noon"}))
    comm.synchronize()
    attempt(FRESH, config(place, max_iter=3))

    comm.synchronize()
    (place / "run.lock").unlink(missing_ok=True)
    comm.synchronize()
    save = torch.save
    torch.save = _full
    attempt(FRESH, config(place, max_iter=3))
    torch.save = save
    attempt(FRESH, config(place, max_iter=3))
    if comm.is_main_process():
        for file in place.glob("*.pth"):
            file.write_bytes(b"PK")
    comm.synchronize()
    attempt(RESUME, config(place, max_iter=4))
    return heard


def _full(_content, stream):
    stream.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
