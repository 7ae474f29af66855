"""Checkpoints in parts whose index or parts are changed, cut, swapped or gone, or run code."""

import itertools
import os
import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.faults.trials import Trial, expect

KIND = "sharded_checkpoints"
FILES = (".metadata", "__0_0.distcp", "__1_0.distcp")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def trials(count: int, seed: int) -> Iterable[Trial]:
    """Give a whole one and one that runs code, then random changes of a whole one."""
    changes = ((f"{what} {n}", change) for n in itertools.count() for what, change in CHANGES)
    first = [("whole", lambda *_: None), ("an index that runs code", _runs_code)]
    for number, (name, change) in enumerate(itertools.chain(first, changes)):
        if number == count:
            return
        expected = {"whole": "right", "an index that runs code": "sentence"}.get(name, "either")
        chance = random.Random(f"{seed} {number}")
        yield Trial(KIND, name, _reads(change, chance), expected)


def _reads(change: Callable[[Path, random.Random], object], chance: random.Random) -> Callable:
    def run() -> None:
        import torch

        from detrex.checkpoint import read_checkpoint
        from tests.reference.sharded_files import in_parts

        whole = in_parts(Path("run.dcp"))
        change(Path("run.dcp"), chance)
        try:
            held = read_checkpoint("run.dcp")
        finally:
            expect(not Path("harm").exists(), "code was run")
        # Under another name where a letter of the name was changed.
        for name, value in held.items():
            expect(name != "weight" or torch.equal(value, whole), "other values than were written")

    return run


def _runs_code(folder: Path, _chance: random.Random) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb()))


def _flip(folder: Path, chance: random.Random) -> None:
    file = folder / chance.choice(FILES)
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def _cut(folder: Path, chance: random.Random) -> None:
    file = folder / chance.choice(FILES)
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data))])


def _drop(folder: Path, chance: random.Random) -> None:
    (folder / chance.choice(FILES)).unlink()


def _swap(folder: Path, chance: random.Random) -> None:
    one, other = (folder / name for name in chance.sample(FILES, 2))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _fill(folder: Path, chance: random.Random) -> None:
    file = folder / chance.choice(FILES)
    data = bytearray(file.read_bytes())
    start = chance.randrange(len(data))
    for place in range(start, min(len(data), start + chance.randrange(1, 40))):
        data[place] = chance.randrange(256)
    file.write_bytes(data)


CHANGES = (("a flipped bit", _flip), ("cut", _cut), ("random bytes", _fill), ("swapped", _swap))
CHANGES += (("a file that is gone", _drop), ("another flipped bit", _flip))
