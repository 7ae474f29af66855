"""A real DINO on real files through `tools/train_net.py`: learning, being killed, two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from detrex.data.demo.shapes import write_shapes_dataset
from detrex.engine import Trainer, run
from tests.reference.tiny_dino import random_inputs, tiny_dino

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes_dataset(folder / "train", 12, image_size=(64, 64), seed=0, max_objects=3)
    write_shapes_dataset(folder / "val", 5, image_size=(64, 64), seed=1, max_objects=3)
    return folder


SHAPES = ROOT / "configs/dino/demo_shapes.py"
FINGERPRINTED = f"""
from detrex.config import load_config
from tests.reference.two_ranks import FingerprintedDINO

cfg = load_config({str(SHAPES)!r})
model, optimizer, lr_multiplier = cfg.model, cfg.optimizer, cfg.lr_multiplier
dataloader, train = cfg.dataloader, cfg.train
model._target_ = FingerprintedDINO
del cfg
"""


def command_line(data: Path, output_dir: Path, *options: str, config: Path = SHAPES) -> list[str]:
    """A DINO of one layer on the CPU; options stand before what they override."""
    flags = [option for option in options if option.startswith("--")]
    overrides = [option for option in options if not option.startswith("--")]
    layers = [f"model.transformer.{part}" for part in ("encoder", "decoder")]
    return [
        *("--config-file", str(config)),
        *flags,
        f"dataloader.folder={data}",
        f"train.output_dir={output_dir}",
        "train.device=cpu",
        "train.seed=7",
        f"train.max_iter={STEPS}",
        "train.eval_period=0",
        "train.log_period=1",
        "train.checkpointer.period=5",
        "train.model_ema.enabled=True",
        "dataloader.train.total_batch_size=4",
        "model.embed_dim=32",
        "model.position_embedding.num_pos_feats=16",
        "model.num_queries=20",
        "model.select_box_nums_for_evaluation=20",
        *(f"{layer}.num_layers=1" for layer in layers),
        *(f"{layer}.feedforward_dim=32" for layer in layers),
        *overrides,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def read_metrics(folder: Path) -> list[dict]:
    file = folder / "metrics.json"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def read_losses(folder: Path) -> dict[int, dict[str, float]]:
    return {
        line["iteration"]: {name: value for name, value in line.items() if "loss" in name}
        for line in read_metrics(folder)
        if "total_loss" in line
    }


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    metrics = run(command_line(data, folder))
    return folder, metrics


def test_train_net__losses_fall(undisturbed):
    folder, metrics = undisturbed
    losses = [values["total_loss"] for _, values in sorted(read_losses(folder).items())]
    assert len(losses) == STEPS
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert {"bbox", "ema/bbox"} <= set(metrics)
    assert (folder / "model_final.pth").is_file()


def test_train_net__killed_and_resumed_equals_undisturbed(data, undisturbed, tmp_path):
    arguments = command_line(data, tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/train_net.py"), *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(read_losses(tmp_path)) < 12:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "model_final.pth").exists()

    metrics = run(command_line(data, tmp_path, "--resume"))
    assert read_losses(tmp_path) == read_losses(undisturbed[0])
    for task in ("bbox", "ema/bbox"):
        assert metrics[task] == pytest.approx(undisturbed[1][task], abs=0, nan_ok=True)


def test_train_net__two_processes_by_torchrun(data, tmp_path):
    config = tmp_path / "fingerprinted.py"
    config.write_text(FINGERPRINTED)
    arguments = command_line(
        data,
        tmp_path / "out",
        "train.max_iter=4",
        "train.model_ema.enabled=False",
        config=config,
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(ROOT / "tools/train_net.py"), *arguments],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f"fingerprints/rank{rank}.txt").read_text() for rank in (0, 1))
    assert first == second, "the ranks hold different weights"
    weights = tmp_path / "out" / "model_final.pth"
    single = run(
        command_line(
            data,
            tmp_path / "single",
            "--eval-only",
            f"train.init_checkpoint={weights}",
            "train.model_ema.enabled=False",
        )
    )
    together = read_metrics(tmp_path / "out")[-1]
    assert together["bbox/AP"] == pytest.approx(single["bbox"]["AP"], abs=1e-6)
    assert together["bbox/AP50"] == pytest.approx(single["bbox"]["AP50"], abs=1e-6)


def test_accumulate_steps__equals_a_larger_batch_of_dino():
    """DINO divides by the number of objects, so equal numbers of them make the two equal.

    In float64, where the choice of queries and pairs is not left to rounding.
    """
    images = random_inputs([(64, 64)] * 4, [3, 3, 3, 3])
    weights = []
    for batches in ([images], [images[:2], images[2:]]):
        torch.manual_seed(0)
        model = tiny_dino(dn_number=0).double()
        trainer = Trainer(
            model,
            iter(batches),
            torch.optim.SGD(model.parameters(), lr=1e-3),
            clip_grad_params={"max_norm": 0.1},
            accumulate_steps=len(batches),
        )
        trainer.train(0, 1)
        weights.append(model.state_dict())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
