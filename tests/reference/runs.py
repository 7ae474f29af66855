"""Runs of the stand-in detector that end at chosen moments, and what they leave in their folder."""

import argparse
import json
import math

from detrex.engine import do_train
from tests.reference.stand_in import stand_in_config, still_image

FRESH, RESUME = argparse.Namespace(resume=False), argparse.Namespace(resume=True)
CLOCK = ("time", "data_time", "eta_seconds")


class Killed(BaseException):
    """Ends a run at any point, as no handler of `Exception` can hold it back."""


def kill_at(iteration: int):
    """A mapper that ends the run in an iteration of 4 images."""

    def mapper(sample: dict) -> dict:
        if mapper.calls == iteration * 4:
            raise Killed
        mapper.calls += 1
        return still_image(sample)

    mapper.calls = 0
    return mapper


def config(folder, mapper=still_image, **train):
    """The stand-in's config without augmentation."""
    cfg = stand_in_config(str(folder), **train)
    cfg.dataloader.train.mapper = mapper
    return cfg


def killed_run(folder, iteration: int, args=FRESH, **train) -> None:
    """A run that dies in an iteration."""
    try:
        do_train(args, config(folder, kill_at(iteration), **train))
    except Killed:
        return
    raise AssertionError("the run was not killed")


def records(folder) -> list[dict]:
    """The lines of `metrics.json`, without what a clock gave."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


def is_finite(lines) -> bool:
    return all(math.isfinite(value) for line in lines for value in line.values())
