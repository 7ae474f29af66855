"""Runs that are asked to stop: what they leave, how they end, and that they go on as if not."""

import argparse
import json
import os
import signal
import threading

import pytest
import torch

from detrex.engine import children, do_train
from detrex.engine.signals import name_of
from tests.reference import signalled
from tests.reference.forked import forked, wait_until
from tests.reference.stand_in import StandIn, read_weights, stand_in_config

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
        wait_until(lambda: len(pids(folder, kind, rank or 0)) >= begun)
        if rank is None:
            os.killpg(program.pid, signum)
        else:
            os.kill(pids(folder, kind, rank)[-1], signum)
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
        (("step", 3), signal.SIGINT),
        (("eval", 3), signal.SIGINT),
    ],
)
def test_stop__goes_on_as_if_nothing_had_been(tmp_path, undisturbed, at, signum):
    status, text = stop(tmp_path / "cut", at=at, signum=signum)
    assert status == (130 if signum == signal.SIGINT else 75), text
    last = at[1] - 1
    assert text.splitlines()[-1].startswith(
        f"detrex: Stopped by {name_of(signum)} after iteration {last}: --resume continues"
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


def test_stop__terminal_interrupts_all_processes(tmp_path, undisturbed):
    """Ranks, workers of their loaders and the parent, which hands it on; it is saved once."""
    folder = tmp_path / "cut"
    argv = ["--num-gpus=2", "dataloader.train.num_workers=1"]
    status, text = stop(folder, *argv, at=("step", 2), signum=signal.SIGINT, rank=None, ranks=2)
    assert status == 130, text
    assert [line for line in text.splitlines() if line.startswith("detrex: ")] == [
        "detrex: Stopped by Ctrl-C (SIGINT) after iteration 1: --resume continues from its "
        f"checkpoint in {folder / 'run'}."
    ]
    assert [file.name for file in (folder / "run").glob("*.pth")] == ["model_0000001.pth"]
    run(folder, "--resume", "--num-gpus=2")
    assert_same_run(folder, undisturbed(2))


class _Interrupted(StandIn):
    """Gets a Ctrl-C in its third step."""

    def forward(self, batch):
        if self.training and self.calls == 2:
            signal.raise_signal(signal.SIGINT)
        return super().forward(batch)


def test_stop__training_called_as_a_function(tmp_path):
    """As in a notebook: what is raised is a KeyboardInterrupt, and the handler is as before."""
    cfg = stand_in_config(str(tmp_path), max_iter=8)
    cfg.model._target_ = _Interrupted
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="after iteration 2: --resume continues from its"):
        do_train(argparse.Namespace(resume=False), cfg)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "model_0000002.pth").is_file()


def test_stop__training_in_a_thread_leaves_signals_alone(tmp_path):
    results = []
    cfg = stand_in_config(str(tmp_path), max_iter=2)
    args = argparse.Namespace(resume=False)
    thread = threading.Thread(target=lambda: results.append(do_train(args, cfg)))
    thread.start()
    thread.join(60)
    assert results
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
