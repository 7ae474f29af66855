"""The evaluator of a config: one, or several that score each prediction in turn."""

import io
import logging
import os
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    coco_evaluation,
)
from detectron2.evaluation.sem_seg_evaluation import load_image_into_numpy_array
from detectron2.utils import comm
from omegaconf import DictConfig
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detrex.config.building import build_part
from detrex.data.picture_files import without_ghostscript
from detrex.data.pictures import read_labels
from detrex.data.tasks import evaluators_of, is_call_of
from detrex.errors import ConfigError
from detrex.report.coco_scores import Scores, scores_of

logger = logging.getLogger(__name__)

_NO_PANOPTICAPI = (
    "dataloader.evaluator: COCOPanopticEvaluator needs the package panopticapi, which is not "
    "installed: install it from cocodataset's repository, or leave this evaluator out."
)


def build_evaluator(cfg: DictConfig) -> DatasetEvaluator:
    """Build ``dataloader.evaluator``.

    Args:
        cfg: the config; the evaluator is a call, or a list of calls whose tasks have different
            names, such as ``bbox``, ``sem_seg`` and ``panoptic_seg``.

    Returns:
        The evaluator; one in the place of a list.

    Raises:
        ConfigError: one of them cannot be built, is no evaluator, or needs a package that is not
            installed.
    """
    mistakes = missing_packages(cfg)
    if mistakes:
        raise ConfigError(mistakes[0])
    without_ghostscript()  # detectron2's open pictures by themselves
    # Without a fast one a COCOEvaluator forgets that it was asked for.
    with _fast_implementation(), _annotations_on_demand():
        built = build_part(cfg.dataloader.evaluator, "dataloader.evaluator")
    evaluator = DatasetEvaluators(list(built)) if isinstance(built, MutableSequence) else built
    for part in _parts(evaluator):
        _require_evaluator(part)
        if getattr(part, "sem_seg_loading_fn", None) is load_image_into_numpy_array:
            part.sem_seg_loading_fn = _load_labels  # detectron2's own fails with numpy 2
    return evaluator


def missing_packages(cfg: DictConfig) -> list[str]:
    """List what a config's evaluators need and is not installed, one sentence each."""
    panoptic = any(is_call_of(node, COCOPanopticEvaluator) for node in evaluators_of(cfg))
    return [_NO_PANOPTICAPI] if panoptic and find_spec("panopticapi") is None else []


@contextmanager
def coco_metrics(evaluator: Any) -> Iterator[dict[str, Scores]]:
    """Let faster-coco-eval compute COCO's metrics, and log what computes them.

    Args:
        evaluator: what `build_evaluator` gives; a COCOEvaluator of it with ``use_fast_impl=False``,
            or built where faster-coco-eval is not installed, keeps pycocotools.

    Yields:
        By task, the figures by class and size of what was evaluated meanwhile; see
        `detrex.report.coco_scores`.
    """
    found = coco_evaluators(evaluator)
    scores: dict[str, Scores] = {}
    compute = coco_evaluation._evaluate_predictions_on_coco

    def noted(truth: Any, detections: Any, task: str, *args: Any, **kwargs: Any) -> Any:
        evaluation = compute(truth, detections, task, *args, **kwargs)
        scores[task] = scores_of(evaluation)
        return evaluation

    with (
        _fast_implementation() as name,
        mock.patch.object(coco_evaluation, "_evaluate_predictions_on_coco", noted),
    ):
        for part in found:
            used = name if part._use_fast_impl else "pycocotools"
            logger.info("COCO's metrics are computed by %s (use_fast_impl).", used)
        yield scores


def coco_evaluators(evaluator: Any) -> list[COCOEvaluator]:
    """List the COCOEvaluators of what `build_evaluator` gives."""
    return [part for part in _parts(evaluator) if isinstance(part, COCOEvaluator)]


def source_of(evaluator: Any) -> dict[str, str | None]:
    """Say what an evaluation compares, for whoever looks at it later.

    Args:
        evaluator: what `build_evaluator` gives.

    Returns:
        Of its first COCOEvaluator, the data set's ``name``, its annotations ``json_file``, the
        pictures' ``image_root``, and the file of ``results``, None where it writes none; empty
        where there is no such evaluator.
    """
    for part in coco_evaluators(evaluator):
        metadata, folder = part._metadata, part._output_dir
        results = os.path.join(folder, "coco_instances_results.json") if folder else None
        return {
            "name": str(metadata.name),
            "json_file": _from_anywhere(metadata.json_file),
            "image_root": _from_anywhere(metadata.get("image_root") or ""),
            "results": results and _from_anywhere(results),
        }
    return {}


def _from_anywhere(path: str) -> str:
    """A path that holds in any folder; addresses, as detectron2 knows some, stay."""
    return path if "://" in path else os.path.abspath(path)


@contextmanager
def _fast_implementation() -> Iterator[str]:
    """Put faster-coco-eval, where it is installed, in the place of detectron2's compiled one."""
    if find_spec("faster_coco_eval") is None:
        yield "detectron2"
        return
    with mock.patch.object(coco_evaluation, "COCOeval_opt", _faster_coco_eval):
        yield f"faster-coco-eval {version('faster-coco-eval')}"


@contextmanager
def _annotations_on_demand() -> Iterator[None]:
    """Spare the ranks that hand their predictions to the main process the reading of a file."""
    if comm.is_main_process():
        yield
        return
    made: list[_CocoOnDemand] = []

    def make(file: str) -> _CocoOnDemand:
        made.append(_CocoOnDemand(file))
        return made[-1]

    with mock.patch.object(coco_evaluation, "COCO", make):
        yield
    for one in made:
        del one.dataset


class _CocoOnDemand(COCO):
    """Reads annotations when an evaluator, once built, asks for something of them."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.dataset = {"annotations": ()}  # a constructor asks whether there are any

    def __getattr__(self, name: str) -> Any:
        if name not in ("dataset", "anns", "imgs", "cats", "imgToAnns", "catToImgs"):
            raise AttributeError(name)
        with redirect_stdout(io.StringIO()):
            super().__init__(self._file)
        return vars(self)[name]


def _faster_coco_eval(truth: Any, detections: Any, task: str) -> Any:
    """Stand in for ``pycocotools.cocoeval.COCOeval``, of whose ``COCO`` both arguments are."""
    if not _has_whole_ids(truth.dataset):
        logger.info(
            "faster-coco-eval takes whole numbers as ids alone: pycocotools computes %s.", task
        )
        return COCOeval(truth, detections, task)
    from faster_coco_eval import COCO, COCOeval_faster

    data = [COCO(part.dataset) for part in (truth, detections)]
    evaluation = COCOeval_faster(*data, task, print_function=logger.info)
    # Its own are those with keypoints alone, and detectron2 asks for the AP of each category.
    evaluation.params.catIds = sorted(truth.getCatIds())
    return evaluation


def _has_whole_ids(dataset: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Tell whether images, annotations and categories are numbered; COCO allows names too."""
    tables = [dataset.get(name, ()) for name in ("images", "annotations", "categories")]
    return all(type(record["id"]) is int for table in tables for record in table)


def _parts(evaluator: Any) -> Iterator[Any]:
    if isinstance(evaluator, DatasetEvaluators):
        for part in evaluator._evaluators:
            yield from _parts(part)
    else:
        yield evaluator


def _load_labels(path: str, copy: bool = False, dtype: Any = None) -> np.ndarray:
    return read_labels(path).astype(dtype or np.int64)


def _require_evaluator(part: Any) -> None:
    if not all(callable(getattr(part, name, None)) for name in ("reset", "process", "evaluate")):
        raise ConfigError(
            f"dataloader.evaluator builds {type(part).__name__}, expected an evaluator with "
            "reset, process and evaluate: call a DatasetEvaluator such as COCOEvaluator."
        )
