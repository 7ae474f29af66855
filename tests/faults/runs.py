"""Runs whose folder is not theirs alone, is full, or holds what others left: by the command line.

Each ends with a look at what is there: the checkpoints, every line of metrics.json, the weights of
a run that nobody disturbed.
"""

import errno
import functools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from detrex.data.demo.shapes import write_shapes_dataset
from tests.faults.dying_files import DyingFiles
from tests.faults.run_damage import DAMAGE, LEFT, OUT
from tests.faults.tiny_run import CONFIG, Ended, differing, metrics, state, train
from tests.faults.trials import Trial, expect, note, sentences, shared_folder

KIND = "runs"
STEPS = 7
OPTIONS = ("train.checkpointer.period=2", "train.eval_period=3")
ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EIO")


def prepare() -> None:
    """Write the data and the config, and run once undisturbed."""
    for seed, (part, count) in enumerate((("train", 6), ("val", 2))):
        write_shapes_dataset(Path(part), count, image_size=(64, 64), seed=seed, max_objects=2)
    Path("config.py").write_text(CONFIG.format(folder=Path.cwd(), steps=STEPS))
    seen = Path("moments.json").absolute()
    ended = _run(Path("straight"), before=functools.partial(_count, Path("straight"), seen))
    expect(ended.code == 0, f"undisturbed it ended with {ended.code}\n{ended.text}")


def _count(folder: Path, file: Path) -> None:
    """Write down, whenever a file is written, how often each moment came."""

    class Counting(DyingFiles):
        def is_now(self, what: str, name: Any) -> bool:
            now = super().is_now(what, name)
            descriptor = low(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(descriptor, json.dumps(self.seen).encode())
            os.close(descriptor)
            return now

    low = os.open
    Counting(folder)


class FullDisk(DyingFiles):
    """From a moment on nothing more can be written: an error of the system's, each time."""

    full = False

    def is_now(self, what: str, file: Any) -> bool:
        self.full = self.full or super().is_now(what, file)
        return self.full and what in ("write", "open", "create", "mkdir", "replace")

    def die(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give what others and a disk do to a run, each kind once, and then full disks at random."""
    kinds: list[tuple[str, Callable[[], None]]] = [
        ("two at once", _two_at_once),
        ("a fresh run in a used folder, killed at once", _used_folder),
        ("evaluated while it trains", _evaluated_while_it_trains),
        ("a full disk", functools.partial(_full_disk, f"{seed}-first")),
        ("the first was killed", _after_a_killed_one),
        ("four starts at once", _four_starts),
        ("the lock of another machine", _other_machine),
        *(
            (f"newest checkpoint {how.__name__}", functools.partial(_damaged, how))
            for how in DAMAGE
        ),
        *(
            (f"left there: {how.__name__}", functools.partial(_left_there, how))
            for how in (checkpoints_of_another_run, *LEFT)
        ),
    ]
    kinds += [
        (f"a full disk {index}", functools.partial(_full_disk, f"{seed}-{index}"))
        for index in range(max(0, count - len(kinds)))
    ]
    for name, run in kinds[:count]:
        yield Trial(KIND, name, run, "right", seconds=240)


def _run(folder: Path = OUT, *options: str, **how: Any) -> Ended:
    config = shared_folder(KIND) / "config.py"
    return train(config, folder, *OPTIONS, *options, **how)


def _is_straight(folder: Path = OUT) -> None:
    """Compare a finished run with the undisturbed one."""
    straight = shared_folder(KIND) / "straight"
    unlike = differing(state(folder), state(straight))
    expect(not unlike, f"{len(unlike)} tensors differ, such as {unlike[:1]}")
    expect(metrics(folder) == metrics(straight), "metrics.json differs")
    left = [file.name for file in folder.iterdir() if "unfinished" in file.name]
    left += [name for name in ("run.lock",) if (folder / name).exists()]
    expect(not left, f"left over: {left}")


def _ends_well(ended: Ended) -> None:
    expect(ended.code == 0, f"ended with {ended.code}: {ended.text[-1500:]}")


def _is_refused(ended: Ended, *words: str) -> None:
    said = sentences(ended.stderr)
    expect(ended.code == 1 and len(said) == 1, f"ended with {ended.code}: {ended.text[-1500:]}")
    expect("Traceback" not in ended.text, f"a traceback: {ended.text[-1500:]}")
    expect(all(word in said[0] for word in words), f"said {said[0]}")


def _await(file: Path, seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.005)
    expect(file.exists(), f"there is no {file}")


def _killed_run(at: str) -> None:
    """Run until a file is there, and kill."""

    def kill(pid: int) -> None:
        _await(OUT / at)
        os.kill(pid, signal.SIGKILL)

    ended = _run(disturb=kill)
    expect(ended.code == -signal.SIGKILL, f"ended with {ended.code}: {ended.text[-500:]}")


def _two_at_once() -> None:
    def second(pid: int) -> None:
        _await(OUT / "run.lock")
        before = (OUT / "run.lock").read_bytes()
        _is_refused(_run(), "is in use by", f"process {pid} on ", "train.output_dir")
        _is_refused(_run(OUT, "--resume"), "is in use by", f"process {pid} on ")
        expect((OUT / "run.lock").read_bytes() == before, "the lock changed")

    _ends_well(_run(disturb=_stopped_while(second)))
    _is_straight()


def _stopped_while(act: Callable[[int], None]) -> Callable[[int], None]:
    """Do something while a run is stopped, so that it does not end before."""

    def disturb(pid: int) -> None:
        _await(OUT / "log.txt")  # it has its lock by then
        os.kill(pid, signal.SIGSTOP)
        try:
            act(pid)
        finally:
            os.kill(pid, signal.SIGCONT)

    return disturb


def _after_a_killed_one() -> None:
    _killed_run("model_0000003.pth")
    expect((OUT / "run.lock").exists(), "a killed run leaves its lock")
    _ends_well(_run(OUT, "--resume"))
    _is_straight()


def _four_starts() -> None:
    others: list[int] = []

    def more(pid: int) -> None:
        for _ in range(3):
            if (other := os.fork()) == 0:
                ended = _run()
                said = sentences(ended.stderr)
                refused = ended.code == 1 and len(said) == 1 and "in use by" in said[0]
                os._exit(0 if ended.code == 0 else 1 if refused else 2)
            others.append(other)

    codes = [_run(disturb=more).code]
    codes += [os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) for other in others]
    note(**{"of four starts at once went on": codes.count(0)})
    expect(sorted(set(codes)) in ([0], [0, 1]), f"ended with {codes}")
    _is_straight()


def _other_machine() -> None:
    OUT.mkdir()
    lock = {"host": "node7", "pid": 1, "boot": "x", "processes": "y", "begun": 5, "token": "z"}
    (OUT / "run.lock").write_text(json.dumps(lock | {"since": "yesterday"}))
    _is_refused(_run(), "process 1 on node7", "sign of life", "train.timeouts.lock", "run.lock")
    os.utime(OUT / "run.lock", (time.time() - 900,) * 2)
    _ends_well(_run())
    _is_straight()


def _evaluated_while_it_trains() -> None:
    def evaluate(pid: int) -> None:
        names = ("config.yaml", "run.json", "run.lock")
        before = [(OUT / name).read_bytes() for name in names]
        ended = _run(OUT, "--eval-only", "--resume", "dataloader.evaluator.output_dir=elsewhere")
        _ends_well(ended)
        expect([(OUT / name).read_bytes() for name in names] == before, "it wrote into the run")

    def when_saved(pid: int) -> None:
        _await(OUT / "last_checkpoint")
        _stopped_while(evaluate)(pid)

    _ends_well(_run(disturb=when_saved))
    _is_straight()


def _used_folder() -> None:
    _ends_well(_run(OUT, "train.seed=8"))
    earlier = json.loads((OUT / "run.json").read_text())["id"]
    lines, files = metrics(OUT), {file.name: file.read_bytes() for file in OUT.glob("model_*.pth")}

    def kill(pid: int) -> None:
        until = time.monotonic() + 40
        while earlier in (OUT / "run.json").read_text() and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)

    expect(_run(disturb=kill).code == -signal.SIGKILL, "it was not killed")
    kept = {name: (OUT / name).read_bytes() for name in files if (OUT / name).is_file()}
    expect(kept == files, "the earlier checkpoints changed")
    _ends_well(_run(OUT, "--resume"))
    _is_straight()
    text = (OUT / f"metrics.{earlier}.json").read_text()
    expect(len(text.splitlines()) == len(lines), "lines of the earlier run are lost")
    for name, data in files.items():
        moved = OUT / f"{name.removesuffix('.pth')}.{earlier}.pth"
        here = moved if moved.is_file() else OUT / name
        expect(here.read_bytes() == data, f"the earlier {name} is lost")


def _full_disk(draw: str) -> None:
    """A disk that is full from some moment on: what was there stays, and the run goes on later."""
    rng = random.Random(draw)
    seen = json.loads((shared_folder(KIND) / "moments.json").read_text())
    kinds = [name for name in sorted(seen) if name.split()[0] in ("write", "open", "create")]
    at = rng.choice(kinds)
    nth, number = rng.randrange(seen[at]), getattr(errno, rng.choice(ERRORS))
    ended = _run(before=functools.partial(FullDisk, OUT, at, nth, number))
    note(**{"full disks": 1, "ended with a sentence": int(ended.code == 1)})
    if ended.code == 0:  # such as log.txt, or after all was done
        _is_straight()
        return
    _is_refused(ended, "cannot be", "written")
    unfinished = [file.name for file in OUT.rglob("*.unfinished")]
    expect(not unfinished, f"left over: {unfinished}")
    for file in OUT.glob("*.pth"):
        torch.load(file, weights_only=True)
    expect(not any(line.startswith("torn") for line in metrics(OUT)), "metrics.json is torn")
    _ends_well(_run(OUT, "--resume"))
    _is_straight()


def _damaged(damage: Callable[[Path], None]) -> None:
    _killed_run("model_0000003.pth.sha256")
    (OUT / "last_checkpoint").write_text("model_0000003.pth")
    damage(OUT / "model_0000003.pth")
    ended = _run(OUT, "--resume")
    _ends_well(ended)
    expect("Passing over a checkpoint" in ended.text, "nothing was said")
    expect(ended.start == 2, f"it went on from {ended.start}")
    _is_straight()


def checkpoints_of_another_run() -> Sequence[str]:
    other = Path("other")
    _ends_well(_run(other, "train.seed=9", "train.max_iter=6"))
    shutil.copy(other / "model_0000005.pth", OUT / "other_0000005.pth")
    shutil.copy(other / "model_final.pth", OUT / "model_final.pth")
    (OUT / "last_checkpoint").write_text("model_final.pth")
    return ("other_0000005.pth",)


def _left_there(leave: Callable[[], Sequence[str]]) -> None:
    """What is in the folder of a killed run beside its own files; it stays where it is said to."""
    _killed_run("model_0000003.pth.sha256")
    staying = leave()
    _ends_well(_run(OUT, "--resume"))
    for name in staying:
        expect((OUT / name).exists(), f"{name} is gone")
    _is_straight()
