"""AP and AR by class and by size of objects, of the arrays that an evaluation has computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_SUFFIXES = {"all": "", "small": "s", "medium": "m", "large": "l"}

Scores = dict[str, Any]


def scores_of(evaluation: Any) -> Scores:
    """Take the figures out of COCO's evaluation, so that none has to be computed again.

    Args:
        evaluation: a ``COCOeval`` of pycocotools, faster-coco-eval or detectron2, accumulated. It
            holds precision ``(IoU, recall, class, size, detections)`` and recall ``(IoU, class,
            size, detections)``, -1 where there are no objects.

    Returns:
        ``total``, figures by name (AP, AP50, AP75, APs, APm, APl, AR, ARs, ARm, ARl) in percent,
        and ``classes``, a list of dicts with ``id``, ``name`` and the same figures; None where
        there are no objects of the kind. AP and AR are means over IoU 0.50 to 0.95 with the
        greatest number of detections that the evaluation counts.
    """
    parameters, arrays = evaluation.params, evaluation.eval
    sizes = list(parameters.areaRngLbl)
    precision = np.asarray(arrays["precision"])[..., -1]
    recall = np.asarray(arrays["recall"])[..., -1]
    thresholds = np.asarray(parameters.iouThrs)

    def figures(classes: Any) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for place, size in enumerate(sizes):
            suffix = _SUFFIXES.get(size, f" {size}")
            found[f"AP{suffix}"] = _mean(precision[:, :, classes, place])
            found[f"AR{suffix}"] = _mean(recall[:, classes, place])
        for threshold in (50, 75):
            at = np.isclose(thresholds, threshold / 100)
            found[f"AP{threshold}"] = _mean(precision[at][:, :, classes, sizes.index("all")])
        return found

    categories: Mapping[Any, Mapping[str, Any]] = evaluation.cocoGt.cats
    ids = np.asarray(parameters.catIds).tolist()  # of numpy's own types, in some versions
    classes = [
        {"id": key, "name": str(categories[key].get("name", key)), **figures(place)}
        for place, key in enumerate(ids)
    ]
    return {"total": figures(slice(None)), "classes": classes}


def _mean(values: np.ndarray) -> float | None:
    """The mean in percent of what there are objects for."""
    counted = values[values > -1]
    return float(counted.mean() * 100) if counted.size else None
