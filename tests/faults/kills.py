"""Runs that are killed at random moments, a third of them while they write, and resumed.

Each is compared with a run that nobody disturbed: weights, moving average and optimizer to the bit,
the lines of metrics.json, the files that are there.
"""

import functools
import json
import logging
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from detrex.data.demo.shapes import write_shapes_dataset
from tests.faults.dying_files import SIGNALS, DyingFiles
from tests.faults.tiny_run import (
    CONFIG,
    KEPT,
    STEPS,
    Ended,
    children,
    differing,
    metrics,
    state,
    train,
)
from tests.faults.trials import Trial, Wrong, expect, note, sentences, shared_folder

KIND = "kills"
RESUMES = 4
REQUEUE, INTERRUPTED = 75, 130


def prepare() -> None:
    """Write the data and the config, and run once undisturbed."""
    for seed, (part, count) in enumerate((("train", 6), ("val", 2))):
        write_shapes_dataset(Path(part), count, image_size=(64, 64), seed=seed, max_objects=2)
    Path("config.py").write_text(CONFIG.format(folder=Path.cwd(), steps=STEPS))
    _run_undisturbed("one", ())


def _run_undisturbed(name: str, options: Sequence[str]) -> Path:
    """Run in the folder of that name, once for all trials, and give the folder."""
    shared = shared_folder(KIND)
    folder, file = shared / name, shared / f"{name}.json"
    with FileLock(f"{folder}.lock"):
        if not file.is_file():
            counted = functools.partial(_count_moments, file, folder)
            ended = train(shared / "config.py", folder, *options, before=counted)
            expect(ended.code == 0, f"undisturbed it ended with {ended.code}\n{ended.text}")
            (shared / f"{name}.seconds").write_text(str(ended.seconds))
    return folder


def _count_moments(file: Path, folder: Path) -> None:
    """Write down the moments at which this process wrote, at its end."""
    files, last = DyingFiles(folder), logging.shutdown

    def write_down() -> None:
        last()
        file.write_text(json.dumps(files.seen))

    logging.shutdown = write_down


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give runs to kill: of three one while it writes, of ten one in two processes."""
    for index in range(count):
        number = list(SIGNALS)[index % 3]
        how = ("moment", "write", "moment")[(index // 3 + index) % 3]
        if index % 10 == 9:
            how = ("rank", "parent", "rank-write")[(index // 10) % 3]
        elif index % 30 == 22:
            number, how = "KILL", "worker"
        draw = f"{seed}-{index}"
        yield Trial(
            KIND,
            f"{number}-{how}-{draw}",
            functools.partial(_kill_and_resume, number, how, draw),
            "right",
            seconds=300,
        )


def _kill_and_resume(signal_name: str, how: str, draw: str) -> None:
    rng = random.Random(draw)
    name, options = "one", ()
    if how in ("rank", "parent", "rank-write"):
        name, options = "two", ("--num-gpus=2",)
    elif how == "worker":
        options = ("dataloader.train.num_workers=1",)
    undisturbed, folder = _run_undisturbed(name, options), Path("out")
    config = undisturbed.parent / "config.py"
    length = float((undisturbed.parent / f"{name}.seconds").read_text())
    killed = _kill(rng, config, folder, how, SIGNALS[signal_name], length, options)
    runs = _resume(rng, config, folder, length, options)
    resumed = runs[-1].code == 0
    note(
        **{
            "runs killed": 1,
            "killed again when resumed": sum(run.code == -signal.SIGKILL for run in runs),
            **{f"by SIG{each}": int(each == signal_name) for each in SIGNALS},
            "while writing": int("write" in how),
            "in two processes": int(name == "two"),
            "resumed to the end": int(resumed),
        }
    )
    problems = _wrong_end(killed, signal_name, how)
    start = next((run.start for run in runs if run.trained), STEPS)
    if signal_name != "KILL" and killed.code in (REQUEUE, INTERRUPTED) and start < killed.done:
        problems.append(f"resumed from step {start}, and {killed.done} were done")
    if not resumed:
        sys.stderr.write(runs[-1].text[-3000:])
        problems.append(f"not resumed: ended with {runs[-1].code}")
    else:
        problems += _compare(folder, undisturbed)
    expect(not problems, "; ".join(problems))


def _resume(
    rng: random.Random, config: Path, folder: Path, length: float, options: Sequence[str]
) -> list[Ended]:
    """Resume until the run is done; one of four is killed once more on the way."""
    if rng.random() < 0.25:
        again = functools.partial(
            _disturb, rng, "moment", signal.SIGKILL, rng.uniform(0.1, 1) * length
        )
        runs = [train(config, folder, "--resume", *options, disturb=again)]
    else:
        runs = []
    while len(runs) < RESUMES and (not runs or runs[-1].code != 0):
        runs.append(train(config, folder, "--resume", *options))
    return runs


def _compare(folder: Path, undisturbed: Path) -> list[str]:
    """Say in what a run that was killed differs at its end from one that was not."""
    unlike = differing(state(folder), state(undisturbed))
    lost, wrong = _compare_lines(metrics(folder), metrics(undisturbed))
    junk = _junk(folder, undisturbed)
    periodic = len([file for file in folder.glob("model_*.pth") if "final" not in file.name])
    note(
        **{
            "equal to the bit": int(not unlike),
            "lines of metrics.json lost": lost,
            "lines of metrics.json twice, torn or different": wrong,
            "files left over": len(junk),
            "folders with more checkpoints than max_to_keep": int(periodic > KEPT),
        }
    )
    problems = {
        f"{len(unlike)} tensors differ, such as {unlike[:1]}": unlike,
        f"metrics.json: {lost} lines lost, {wrong} more": lost or wrong,
        f"left over: {', '.join(junk)}": junk,
        f"{periodic} checkpoints, at most {KEPT} are wanted": periodic > KEPT,
    }
    return [text for text, holds in problems.items() if holds]


def _kill(
    rng: random.Random,
    config: Path,
    folder: Path,
    how: str,
    number: int,
    length: float,
    options: Iterable[str],
) -> Ended:
    """Run until the signal comes; a run that ends before is repeated."""
    for attempt in range(2 * RESUMES):
        if "write" in how:
            at, nth = _moment(rng)
            dying = functools.partial(DyingFiles, folder, at, nth, number)
            ended = train(config, folder, *options, before=dying)
        else:
            wait = rng.uniform(0.1, 1.0) * length * 0.7**attempt
            disturb = functools.partial(_disturb, rng, how, number, wait)
            ended = train(config, folder, *options, disturb=disturb)
        if ended.code != 0:
            return ended
        folder.rename(f"{folder}-{time.monotonic_ns()}")
    raise Wrong("the run could not be killed: it ended before")


def _moment(rng: random.Random) -> tuple[str, int]:
    """Draw a kind of moment, and then one of that kind."""
    seen = json.loads((shared_folder(KIND) / "one.json").read_text())
    name = rng.choice(sorted(seen))
    return name, rng.randrange(seen[name])


def _disturb(rng: random.Random, how: str, number: int, wait: float, pid: int) -> None:
    time.sleep(wait)
    ranks = children(pid) if how in ("rank", "worker") else []
    try:
        os.kill(rng.choice(ranks) if ranks else pid, number)
    except ProcessLookupError:
        return


def _wrong_end(ended: Ended, signal_name: str, how: str) -> list[str]:
    """Say what is wrong with the end of a run that got a signal."""
    problems = ["processes of it stayed"] if ended.orphans else []
    if "Traceback (most recent call last)" in ended.text:
        sys.stderr.write(ended.text[ended.text.index("Traceback (most recent call last)") :])
    good = {"KILL": {-signal.SIGKILL}, "TERM": {REQUEUE}, "INT": {INTERRUPTED}}[signal_name]
    if how in ("rank", "rank-write", "worker"):  # the others end with it, which is said
        good = good | {1}
    if not ended.trained and signal_name == "TERM":  # nothing is there to save
        good = good | {-signal.SIGTERM}
    if ended.code not in good:
        last = (ended.stderr or ended.stdout)[-300:]
        problems.append(f"ended with {ended.code} by SIG{signal_name}: {last}")
    said = sentences(ended.stderr)
    if len(said) > 1:
        problems.append(f"said {' / '.join(said)[-300:]}")
    return problems


def _compare_lines(lines: list[str], undisturbed: list[str]) -> tuple[int, int]:
    """Count the lines that are lost, and those that are too many or in another order."""
    lost = sum(line not in lines for line in undisturbed)
    known = [line for line in lines if line in undisturbed]
    wrong = len(lines) - len(set(known))
    return lost, wrong or int(known != [line for line in undisturbed if line in lines])


def _junk(folder: Path, undisturbed: Path) -> list[str]:
    """List the files that an undisturbed run does not leave; checkpoints may be of other steps."""
    usual = {_step_taken_out(file.name) for file in undisturbed.iterdir()}
    names = [file.name for file in folder.iterdir()]
    checkpoints = {name for name in names if name.endswith(".pth")}
    orphans = [
        name
        for name in names
        if (found := re.match(r"(model_\w+\.pth).+", name)) and found[1] not in checkpoints
    ]
    return sorted({*orphans, *(name for name in names if _step_taken_out(name) not in usual)})


def _step_taken_out(name: str) -> str:
    return re.sub(r"\d{7}", "N", re.sub(r"tfevents\..*", "tfevents", name))
