"""Runs that are asked to stop: what they leave, how they end, and that they go on as if not."""

import json
import os
import signal

import pytest
import torch

from detrex.engine import children
from tests.reference import signalled
from tests.reference.forked import forked, wait_until
from tests.reference.stand_in import read_weights

EVALUATED = ["train.eval_period=3", "train.log_period=3"]


@pytest.fixture(autouse=True)
def _forked_children(monkeypatch):
    monkeypatch.setattr(children, "START_METHOD", "fork")


def run(folder, *argv, status=0):
    folder.mkdir(exist_ok=True)
    with forked(folder / "log", signalled.main, [str(folder), *EVALUATED, *argv]) as program:
        assert program.status() == status, program.text()


def pids(folder, kind, rank=0):
    """The process of a rank, once for each step that it began."""
    file = folder / f"{kind}{rank}s"
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def stop(folder, *argv, at, signum, rank=0, ranks=1):
    """Signal a rank that is held in a step or an evaluation, and give what the run then said."""
    folder.mkdir()
    kind, iteration = at
    holds = [folder / f"hold-{kind}{other}-{iteration}" for other in range(ranks)]
    for hold in holds:
        hold.touch()
    with forked(folder / "log", signalled.main, [str(folder), *EVALUATED, *argv]) as program:
        begun = {"step": iteration, "eval": 1}[kind]
        wait_until(lambda: len(pids(folder, kind, rank)) >= begun)
        sender = pids(folder, kind, rank)[-1] if rank is not None else program.pid
        os.kill(sender, signum)
        for hold in holds:
            hold.unlink()
        return program.status(), program.text()


def records(folder):
    lines = [json.loads(line) for line in (folder / "run/metrics.json").read_text().splitlines()]
    times = ("data_time", "time", "rank_data_time")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def assert_same_run(one, other):
    torch.testing.assert_close(
        read_weights(one / "run"), read_weights(other / "run"), rtol=0, atol=0
    )
    assert records(one) == records(other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    done = {}

    def of(ranks):
        if ranks not in done:
            done[ranks] = tmp_path_factory.mktemp(f"undisturbed{ranks}")
            run(done[ranks], f"--num-gpus={ranks}")
        return done[ranks]

    return of


@pytest.mark.parametrize(
    ("at", "signum"),
    [
        (("step", 2), signal.SIGTERM),
        (("step", 3), signal.SIGUSR1),
        (("eval", 3), signal.SIGTERM),
    ],
)
def test_stop__goes_on_as_if_nothing_had_been(tmp_path, undisturbed, at, signum):
    status, text = stop(tmp_path / "cut", at=at, signum=signum)
    assert status == 75, text
    last = at[1] - 1
    assert text.splitlines()[-1].startswith(
        f"detrex: Stopped by {signum.name} after iteration {last}: --resume continues"
    )
    assert "Traceback" not in text
    assert (tmp_path / f"cut/run/model_000000{last}.pth").exists()
    run(tmp_path / "cut", "--resume")
    assert_same_run(tmp_path / "cut", undisturbed(1))


@pytest.mark.parametrize(("at", "rank"), [(("step", 2), 1), (("eval", 3), 1)])
def test_stop__signal_to_one_of_two_ranks(tmp_path, undisturbed, at, rank):
    status, text = stop(
        tmp_path / "cut", "--num-gpus=2", at=at, signum=signal.SIGUSR1, rank=rank, ranks=2
    )
    assert status == 75, text
    assert f"detrex: Stopped by SIGUSR1 after iteration {at[1] - 1}" in text
    run(tmp_path / "cut", "--resume", "--num-gpus=2")
    assert_same_run(tmp_path / "cut", undisturbed(2))
