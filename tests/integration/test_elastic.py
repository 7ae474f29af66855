"""A run whose number of machines changes under it, against one that is led through the same."""

import json
import logging
import os
import random
import shutil
import signal
import time

import pytest
import torch

from detrex.engine import children
from tests.reference import signalled
from tests.reference.elastic import Node, two_machines
from tests.reference.forked import forked, wait_until
from tests.reference.stand_in import read_weights

PERIOD = 4

logger = logging.getLogger(__name__)


def program(folder, *argv):
    checkpoints = f"train.checkpointer.period={PERIOD}"
    return [str(folder), checkpoints, "train.max_iter=150", "train.log_period=1", *argv]


@pytest.fixture
def _forked_children(monkeypatch):
    monkeypatch.setattr(children, "START_METHOD", "fork")
    for name in ("_GRACE", "_TERM_GRACE"):
        monkeypatch.setattr(children, name, 0.5)


def steps(folder, rank=0):
    file = folder / f"step{rank}s"
    return len(file.read_text().splitlines()) if file.exists() else 0


def segments(folder):
    """First iteration and number of processes, of each part of a run."""
    lines = (folder / "segments").read_text().splitlines()
    return [tuple(int(word) for word in line.split()) for line in lines]


def losses(folder):
    lines = [json.loads(line) for line in (folder / "run/metrics.json").read_text().splitlines()]
    return {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}


def led_through(folder, parts, last):
    """Run the parts of another run, each stopped where the next one starts."""
    folder.mkdir()
    ends = [start for start, _ in parts[1:]] + [None]
    for (start, ranks), end in zip(parts, ends, strict=True):
        stop = [f"--stop-at={end - start}"] if end is not None else []
        argv = program(folder, "--resume", f"--num-gpus={ranks}", f"train.max_iter={last}", *stop)
        with forked(folder / "log", signalled.main, argv) as one:
            assert one.status() == (75 if stop else 0), one.text()


def assert_equal_to_one_led_through(folder, last):
    led_through(folder.parent / "led", segments(folder), last)
    expected = losses(folder.parent / "led")
    assert sorted(expected) == list(range(last))
    assert losses(folder) == expected
    torch.testing.assert_close(
        read_weights(folder / "run"), read_weights(folder.parent / "led/run"), rtol=0, atol=0
    )


@pytest.mark.usefixtures("_forked_children")
def test_resume__other_numbers_of_processes(tmp_path):
    folder, last = tmp_path / "run", 12
    folder.mkdir()
    (folder / "hold-step1-7").touch()
    argv = program(folder, "--resume", f"train.max_iter={last}")
    with forked(tmp_path / "log", signalled.main, [*argv, "--num-gpus=2"]) as one:
        wait_until(lambda: steps(folder, 1) == 7)
        os.kill(int((folder / "step1s").read_text().split()[-1]), signal.SIGKILL)
        assert one.status() == 1
    with forked(tmp_path / "log", signalled.main, [*argv, "--stop-at=5"]) as one:
        assert one.status() == 75
    with forked(tmp_path / "log", signalled.main, [*argv, "--num-gpus=2"]) as one:
        assert one.status() == 0
    assert segments(folder) == [(0, 2), (4, 1), (9, 2)]
    assert_equal_to_one_led_through(folder, last)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip, of the package iproute2")
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are made by root alone")
@pytest.mark.usefixtures("_forked_children")
def test_torchrun__machine_dies_and_comes_back(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    argv = ["-m", "tests.reference.signalled", *program(folder, "--resume", "--pace=0.3")]
    random.seed(os.environ.get("DETREX_TEST_SEED", "0"))
    killed_at, alone = random.randint(5, 14), random.randint(3, 12)
    nodes = []
    try:
        with two_machines() as machines:
            host = machines[0][1]
            nodes = [Node(m, host, tmp_path / f"log{i}", argv) for i, m in enumerate(machines)]
            wait_until(lambda: steps(folder, 1) >= killed_at, 120)
            nodes[1].kill()
            reached = steps(folder)
            killed = time.monotonic()
            wait_until(lambda: len(segments(folder)) > 1, 120)
            logger.info("Killed at %d, on after %.0f s.", reached, time.monotonic() - killed)
            alone += steps(folder)
            wait_until(lambda: steps(folder) >= alone, 120)
            nodes.append(Node(machines[1], host, tmp_path / "log2", argv))
            for node in (nodes[0], nodes[2]):
                assert node.process.wait(180) == 0
    finally:
        for node in nodes:
            node.kill()
    parts = segments(folder)
    logger.info("Parts (first iteration, processes): %s.", parts)
    assert [ranks for _, ranks in parts] == [2, 1, 2]
    assert 0 <= reached - parts[1][0] <= PERIOD
    assert_equal_to_one_led_through(folder, 150)
