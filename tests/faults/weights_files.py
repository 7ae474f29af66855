"""Weights files that are damaged, made to do harm, of other kinds, or no files at all.

Each starts a network as `train.init_checkpoint` does. `tests.faults.odd_weights` writes those with
a name; the rest are of `benchmarks.weights_mutations`, different ones for each seed.
"""

import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from benchmarks.weights_mutations import case
from detrex.checkpoint import DetectionCheckpointer, load_init_checkpoint, load_weights
from tests.faults.odd_weights import GOOD, ODD, network
from tests.faults.trials import Trial, expect, note

KIND = "weights_files"


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give the named files first, in an order of the seed, and then random ones."""
    named = [
        *(Trial(KIND, name, functools.partial(_refused, make), "sentence") for name, make in ODD),
        *(Trial(KIND, name, functools.partial(_loaded, make), "right") for name, make in GOOD),
        *(
            Trial(KIND, f"resume-{name}", functools.partial(_resumed, damage), "right")
            for name, damage in DAMAGES.items()
        ),
    ]
    random.Random(seed).shuffle(named)
    yield from named[:count]
    for number in range(count - len(named)):
        run = functools.partial(_random, seed, number)
        yield Trial(KIND, f"mutation-{seed}-{number}", run, "either")


def _start(path: str | Path, way: int = 0) -> nn.Module:
    model = network()
    if way == 0:
        DetectionCheckpointer(model).load(path)
    elif way == 1:
        load_init_checkpoint(model, path)
    else:
        load_weights(model, path)
    return model


def _refused(make: Callable[[], str | Path]) -> None:
    _start(make())


def _loaded(make: Callable[[], str | Path]) -> None:
    loaded = _start(make())
    expect(_same(loaded, network(1)), "other values than the file's")


def _same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _random(seed: int, number: int) -> None:
    made = case(seed, number)
    for name, data in made.files.items():
        Path(name).write_bytes(data)
    _start(Path(next(iter(made.files))), number % 3)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 16
    file.write_bytes(data)


def _replace(file: Path) -> None:
    torch.save({"model": network(3).state_dict(), "iteration": 99}, file)


def _poison(file: Path) -> None:
    model = network(2)
    next(model.parameters()).data.view(-1)[2] = float("nan")
    DetectionCheckpointer(model, file.parent).save(file.stem, iteration=2)


def _unlink_and_fifo(file: Path) -> None:
    import os

    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "a flipped bit": _flip,
    "replaced": _replace,
    "NaN": _poison,
    "emptied": lambda file: file.write_bytes(b""),
    "a fifo": _unlink_and_fifo,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "gone": Path.unlink,
    "a loop of links": lambda file: (file.unlink(), file.symlink_to(file)),
}


def _resumed(damage: Callable[[Path], None]) -> None:
    """The newest of two checkpoints is passed over for the one before."""
    folder = Path("run")
    for number in (1, 2):
        DetectionCheckpointer(network(number), folder).save(
            f"model_000000{number}", iteration=number
        )
    damage(folder / "model_0000002.pth")
    model = network()
    rest = DetectionCheckpointer(model, folder).resume_or_load("", resume=True)
    expect(rest == {"iteration": 1}, f"resumed from {rest}")
    expect(_same(model, network(1)), "other weights than the first checkpoint's")
    note(resumed=True)
