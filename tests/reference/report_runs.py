"""Folders of finished runs, made up: pictures with shapes, detections with known mistakes."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detrex.data.demo.shapes import write_shapes_dataset
from detrex.report import record
from detrex.report.coco_scores import scores_of

ENVIRONMENT = "sys.platform            linux\nPython                  3.11.7\n"


def made_up_run(folder: Path, pictures: int = 4, masks: bool = False, seed: int = 0) -> Path:
    """A run of 100 iterations, resumed at 40, whose detections are the truth with mistakes.

    Returns:
        Its folder, with everything that a training leaves there but checkpoints.
    """
    run = folder / "run"
    run.mkdir(parents=True)
    write_shapes_dataset(folder / "val", num_images=pictures, seed=seed)
    file, results = folder / "val/annotations.json", run / "coco_instances_results.json"
    content = json.loads(file.read_text())
    results.write_text(json.dumps(mistaken(content, masks, seed)))
    tasks = ["bbox", "segm"] if masks else ["bbox"]
    scores = {task: scores_of(evaluated(file, results, task)) for task in tasks}
    scores |= {f"ema/{task}": of for task, of in scores.items()}
    rows = [_row(i) for i in range(4, 100, 5)]
    rows.append(
        {"iteration": 100} | {f"{t}/{k}": v for t in scores for k, v in _metrics(scores[t])}
    )
    (run / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "log.txt").write_text(_LOG)
    about = {
        "config": "model:\n  _target_: DINO\ntrain:\n  init_checkpoint: https://me:hunter2@host/x.pth\n",
        "config_file": "configs/dino/demo_shapes.py",
        "detector": "DINO",
        "backbone": "ResNet",
        "trained_on": ["demo_shapes_train"],
        "parameters": 1234567,
        "trainable": 1200000,
        "max_iter": 100,
    }
    seconds = dict(
        zip(("start", "data", "step", "evaluation", "rest"), (1, 2, 30, 4, 0.5), strict=True)
    )
    data = {"name": "shapes_val", "json_file": str(file), "results": str(results)}
    data["image_root"] = str(folder / "val/images")
    record.begin(run, "a1", 0, about)
    record.end(run, {"ended": "stopped by a signal", "last": 39, "seconds": seconds}, {})
    record.begin(run, "a1", 40, about)
    ended = {"ended": "finished", "last": 99, "seconds": seconds}
    record.end(run, ended, {"scores": scores, "data": data})
    return run


def mistaken(content: dict, masks: bool, seed: int) -> list[dict]:
    """Rows of results: moved boxes, some of another class, some missing, some of nothing."""
    rng = np.random.default_rng(seed)
    kinds = [category["id"] for category in content["categories"]]
    rows = []
    for one in content["annotations"]:
        if rng.random() < 0.2:
            continue
        kind = one["category_id"] if rng.random() < 0.8 else kinds[rng.integers(len(kinds))]
        box = (np.array(one["bbox"]) + rng.normal(0, 1.5, 4)).clip(0.5).tolist()
        row = {"image_id": one["image_id"], "category_id": kind, "bbox": box}
        rows.append(row | {"score": rng.uniform(0.4, 1)} | (_mask(one) if masks else {}))
    for image in content["images"]:
        box = [*rng.uniform(0, 80, 2), *rng.uniform(10, 40, 2)]
        row = {"image_id": image["id"], "category_id": kinds[0], "bbox": box}
        row |= {"score": rng.uniform(0.05, 0.7)}
        rows.append(row | (_mask({"segmentation": _rectangle(box)}) if masks else {}))
    return rows


def evaluated(annotations: Path, results: Path, task: str = "bbox") -> COCOeval:
    """COCO's evaluation of a file of results."""
    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(str(results)), task)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _mask(one: dict) -> dict:
    outline = mask_util.merge(mask_util.frPyObjects(one["segmentation"], 128, 128))
    return {"segmentation": {"size": [128, 128], "counts": outline["counts"].decode()}}


def _rectangle(box: list[float]) -> list[list[float]]:
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _row(i: int) -> dict[str, float]:
    terms = {"loss_class": 2.0 / (i + 1), "loss_bbox": 5.0 / (i + 1), "loss_bbox_0": 6.0 / (i + 1)}
    evaluation = {"bbox/AP": i / 4, "bbox/AP50": i / 2} if i % 25 == 24 else {}
    clocks = {"lr": 1e-3 * (1 - i / 100), "time": 0.3, "data_time": 0.01}
    return {"iteration": i, "total_loss": sum(terms.values()), **terms, **clocks, **evaluation}


def _metrics(scores: dict) -> list[tuple[str, float]]:
    total = {k: v for k, v in scores["total"].items() if v is not None and k.startswith("AP")}
    return [*total.items(), *((f"AP-{one['name']}", one["AP"] or 0.0) for one in scores["classes"])]


_START = "detrex.engine.command_line INFO: Rank 0 of 1. Command line: Namespace"
_LOG = f"""[11/26 12:00:00] detrex.engine.command_line WARNING: of an earlier run
[11/26 13:00:00] {_START}(resume=False, eval_only=False)
[11/26 13:00:01] detrex.engine.command_line INFO: Environment:
----------------------  -----
{ENVIRONMENT}----------------------  -----
[11/26 13:00:02] detrex.data WARNING: 3 of 9 pictures are <b>dark</b>.
[11/26 13:00:03] detrex.data WARNING: 3 of 9 pictures are <b>dark</b>.
[11/26 13:05:00] {_START}(resume=True, eval_only=False)
[11/26 13:05:01] d2.engine ERROR: fetched from https://me:hunter2@host/x.pth
"""
