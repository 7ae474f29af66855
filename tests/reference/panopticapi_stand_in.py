"""What detectron2 uses of the package panopticapi: PQ as arXiv 1801.00868 defines it."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``import panopticapi`` find this module's functions."""
    names = ("panopticapi", "panopticapi.utils", "panopticapi.evaluation")
    for name in names:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.id2rgb, module.pq_compute = id2rgb, pq_compute
        monkeypatch.setitem(sys.modules, name, module)


def id2rgb(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def _segments(folder: str, annotation: dict) -> list[tuple[int, np.ndarray]]:
    picture = np.asarray(Image.open(Path(folder) / annotation["file_name"])).astype(int)
    ids = picture @ [1, 256, 65536]
    return [(info["category_id"], ids == info["id"]) for info in annotation["segments_info"]]


def pq_compute(gt_json: str, pred_json: str, gt_folder: str, pred_folder: str) -> dict[str, Any]:
    truth, found = (json.loads(Path(file).read_text()) for file in (gt_json, pred_json))
    answers = {a["image_id"]: a for a in found["annotations"]}
    kinds = {c["id"]: bool(c["isthing"]) for c in truth["categories"]}
    overlaps: dict[int, list[float]] = {kind: [] for kind in kinds}
    missed = dict.fromkeys(kinds, 0.0)  # half of the segments of truth and answer without partner
    for annotation in truth["annotations"]:
        answer = _segments(pred_folder, answers[annotation["image_id"]])
        for kind, _ in answer:
            missed[kind] += 0.5
        for kind, mask in _segments(gt_folder, annotation):
            missed[kind] += 0.5
            for other, guess in answer:
                iou = (mask & guess).sum() / (mask | guess).sum()
                if other == kind and iou > 0.5:
                    overlaps[kind].append(iou)
                    missed[kind] -= 1
    result = {}
    for name, wanted in (("All", (True, False)), ("Things", (True,)), ("Stuff", (False,))):
        rows = []
        for kind in (k for k in kinds if kinds[k] in wanted and (overlaps[k] or missed[k])):
            matched = len(overlaps[kind])
            quality = sum(overlaps[kind]) / max(matched, 1)
            recognised = matched / (matched + missed[kind])
            rows.append((quality * recognised, quality, recognised))
        pq, sq, rq = np.mean(rows, axis=0).tolist()
        result[name] = {"pq": pq, "sq": sq, "rq": rq, "n": len(rows)}
    return result
