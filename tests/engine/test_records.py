import json
import logging
import os

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detrex.engine import do_train
from detrex.engine.records import Records
from detrex.errors import RunError
from detrex.utils import metrics_file
from tests.reference.runs import FRESH, RESUME, Killed, config, kill_at, killed_run, records
from tests.reference.stand_in import read_weights


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Records of undisturbed runs by their options, each run once."""
    known = {}

    def of(**train):
        key = json.dumps(train, sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp("straight")
            do_train(FRESH, config(folder, **train))
            known[key] = records(folder), read_weights(folder)
        return known[key]

    return of


@pytest.mark.parametrize(
    ("log", "evaluate", "iterations"),
    [(1, 0, (1, 3, 6)), (3, 2, (2, 3, 5)), (4, 5, (3, 4, 6)), (20, 3, (1, 5)), (5, 0, (3, 4))],
)
def test_records__of_a_run_killed_anywhere_equal_an_undisturbed_ones(
    tmp_path, straight, log, evaluate, iterations
):
    options = {"log_period": log, "eval_period": evaluate, "max_iter": 7}
    expected, weights = straight(**options)
    for iteration in iterations:
        folder = tmp_path / str(iteration)
        killed_run(folder, iteration, **options)
        do_train(RESUME, config(folder, **options))
        assert records(folder) == expected
        torch.testing.assert_close(read_weights(folder), weights, rtol=0, atol=0)


def test_records__of_a_run_killed_again_and_again(tmp_path, straight):
    options = {"log_period": 3, "eval_period": 4, "max_iter": 9}
    killed_run(tmp_path, 3, **options)
    for _ in range(2):  # each gets two iterations further
        killed_run(tmp_path, 3, RESUME, **options)
    do_train(RESUME, config(tmp_path, **options))
    assert records(tmp_path) == straight(**options)[0]


class DiesIn:
    """Ends a run in the n-th call of a function."""

    def __init__(self, function, call):
        self.function, self.left = function, call

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise Killed
        return self.function(*args, **kwargs)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_records__evaluation_and_line_that_a_kill_prevented_follow(
    tmp_path, straight, monkeypatch, call
):
    """The checkpoint of an iteration is there before its evaluation and its line."""
    options = {"log_period": 2, "eval_period": 2, "max_iter": 7}
    with monkeypatch.context() as patch:
        dies = DiesIn(metrics_file._append, call)
        patch.setattr(metrics_file, "_append", dies)
        with pytest.raises(Killed):
            do_train(FRESH, config(tmp_path, **options))
        dies.left = 0
    do_train(RESUME, config(tmp_path, **options))
    assert records(tmp_path) == straight(**options)[0]


def test_records__of_a_finished_run_that_is_resumed_stay(tmp_path):
    options = {"eval_period": 2, "log_period": 4}
    do_train(FRESH, config(tmp_path, **options))
    before = records(tmp_path)
    assert [line["iteration"] for line in before] == [1, 3, 5, 6]
    assert do_train(RESUME, config(tmp_path, **options))["bbox"]
    assert records(tmp_path) == before


def test_records__torn_and_glued_lines_are_mended(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    options = {"log_period": 1, "max_iter": 6}
    killed_run(tmp_path, 5, **options)
    file = tmp_path / "metrics.json"
    text = file.read_text()
    file.write_text(text[: text.index("\n") + 1] + '{"itera{"iteration": 1}\n' + text[:40])
    do_train(RESUME, config(tmp_path, **options))
    lines = records(tmp_path)
    assert [line["iteration"] for line in lines] == [0, 3, 4, 5, 6], "1 and 2 were not on the disk"
    assert "torn (2)" in caplog.text


def test_records__another_log_period_after_a_resume(tmp_path):
    killed_run(tmp_path, 5, log_period=4, max_iter=8)
    do_train(RESUME, config(tmp_path, log_period=3, max_iter=8))
    assert [line["iteration"] for line in records(tmp_path)] == [3, 5, 7, 8]


def test_records__a_failed_line_ends_the_run_and_leaves_the_file_whole(tmp_path, monkeypatch):
    options = {"checkpointer": {"period": 100}}
    do_train(FRESH, config(tmp_path, max_iter=2, **options))
    before = (tmp_path / "metrics.json").read_bytes()

    def full(descriptor, sync=os.fsync):
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path / "metrics.json"):
            raise OSError(28, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"metrics\.json cannot be written: the disk is full"):
            do_train(RESUME, config(tmp_path, max_iter=5, **options))
    # the evaluation of the shorter run came after its checkpoint
    assert (tmp_path / "metrics.json").read_bytes() == b"".join(before.splitlines(True)[:2])


def test_records__tensorboard_has_every_value_once(tmp_path, straight):
    options = {"log_period": 2, "eval_period": 3, "max_iter": 7}
    killed_run(tmp_path, 5, **options)
    do_train(RESUME, config(tmp_path, **options))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in ("total_loss", "bbox/AP", "lr"):
        # Sorted: TensorBoard reads files of one second in the order of their names, 10 before 9.
        seen = sorted((event.step, event.value) for event in events.Scalars(name))
        lines = straight(**options)[0]
        expected = [(line["iteration"], line[name]) for line in lines if name in line]
        assert [step for step, _ in seen] == [step for step, _ in expected]
        assert [v for _, v in seen] == pytest.approx([v for _, v in expected], rel=1e-6)


def test_records__an_error_in_the_last_iteration_is_not_evaluated(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("detrex.engine.train.Evaluation.__call__", lambda *_: calls.append(1))
    with pytest.raises(Killed):
        do_train(FRESH, config(tmp_path, kill_at(5)))
    assert not calls


def test_state_dict__is_nothing_before_training():
    hook = Records([], 3, None, None)
    hook.trainer = object()
    assert hook.state_dict() == {}
