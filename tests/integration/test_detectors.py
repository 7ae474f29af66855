"""detectron2's own detectors through the engine, in one process and in two."""

import argparse
import json
import math
from pathlib import Path

import pytest
import torch

from detrex.engine import do_train
from tests.reference.detector_runs import (
    EMPTY,
    TWO_RANKS,
    config,
    with_detectron2s_mapper,
    write_data,
)
from tests.reference.tiny_detectors import DETECTORS
from tests.reference.torchrun import run_two_ranks

RUN = argparse.Namespace(resume=False)

TASKS = {"keypoint_rcnn_fpn": "keypoints", "fcos": "bbox", "retinanet": "bbox"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    write_data(folder)
    return folder


@pytest.mark.parametrize("name", DETECTORS)
def test_do_train__every_detector(folder, name):
    cfg = config(name, folder, clip_grad={"enabled": True}, model_ema={"enabled": True})
    if name in ("keypoint_rcnn_fpn", "mask_rcnn_c4"):
        cfg = with_detectron2s_mapper(cfg)
    if name in ("fcos", "mask_rcnn_fpn", "panoptic_fpn"):
        cfg.train.amp = {"enabled": True, "dtype": "bfloat16"}
    metrics = do_train(RUN, cfg)
    tasks = {"bbox", TASKS.get(name, "segm")} | ({"sem_seg"} if name == "panoptic_fpn" else set())
    assert set(metrics) == tasks | {f"ema/{task}" for task in tasks}
    lines = (Path(cfg.train.output_dir) / "metrics.json").read_text().splitlines()
    written = {key: value for line in lines for key, value in json.loads(line).items()}
    assert {f"{task}/{name}" for task, table in metrics.items() for name in table} <= written.keys()
    assert {f"{task}/AP-circle" for task in tasks - {"sem_seg"}} <= written.keys()
    losses = {key: value for key, value in written.items() if "loss" in key}
    assert len(losses) > 2
    assert all(math.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn_c4"])
def test_do_train__resumed_has_the_losses_of_an_undisturbed_run(folder, name):
    seen = []
    for stops in ((4,), (2, 4)):
        for max_iter in stops:
            cfg = config(name, folder, checkpointer={"period": 2})
            cfg.dataloader.evaluator, cfg.lr_multiplier.end_value = None, 1.0
            cfg.optimizer.lr = 1e-4
            cfg.train.update(max_iter=max_iter, output_dir=f"{folder}/{name}_{stops}")
            do_train(argparse.Namespace(resume=max_iter != stops[0]), cfg)
        rows = map(json.loads, Path(cfg.train.output_dir, "metrics.json").read_text().splitlines())
        seen.append({row["iteration"]: row["total_loss"] for row in rows if "total_loss" in row})
    assert list(seen[0]) == list(seen[1]) == [0, 1, 2, 3]
    # Kernels round differently from run to run.
    assert seen[0] == pytest.approx(seen[1], rel=1e-3)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each rank saw; one launch for all, since it costs seconds."""
    folder = tmp_path_factory.mktemp("two_ranks")
    write_data(folder)
    run_two_ranks("tests.reference.detector_runs", folder)
    return [torch.load(folder / f"seen{rank}.pth") for rank in (0, 1)]


@pytest.mark.parametrize("name", TWO_RANKS)
@pytest.mark.parametrize("empty", EMPTY)
def test_train__rank_without_objects(seen, name, empty):
    first, second = (of_rank[f"{name} {empty}"] for of_rank in seen)
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    assert first["losses"] == second["losses"]
    assert all(math.isfinite(v) for values in first["losses"].values() for v in values)


def test_do_test__truth_on_an_odd_number_of_images(seen):
    metrics, nothing = (of_rank["metrics"] for of_rank in seen)
    assert nothing == {}
    assert {task: table["AP"] for task, table in metrics.items()} == pytest.approx(
        {"bbox": 100, "segm": 100, "keypoints": 100}
    )
