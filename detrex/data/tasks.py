"""What a config trains and evaluates, as its mappers, evaluators and detector say."""

from collections.abc import Iterator
from typing import Any

from detectron2.data import DatasetMapper
from omegaconf import DictConfig, ListConfig

from detrex.config import try_get_key
from detrex.config.lazy_call import is_call, target_of
from detrex.data.dataset_mappers import COCOInstanceNewBaselineDatasetMapper
from detrex.data.dataset_mappers.segmentation_mapper import SegmentationMapper
from detrex.data.detr_dataset_mapper import DetrDatasetMapper

READERS = (DetrDatasetMapper, SegmentationMapper, DatasetMapper)
"""The mappers that open a picture by its record's file name."""

MASK_SWITCHES = ("mask_on", "use_instance_mask")
KEYPOINT_SWITCHES = ("keypoint_on", "use_keypoint")

_NUM_CLASSES = ("model.num_classes", "model.roi_heads.num_classes")


def masks_wanted(cfg: DictConfig) -> bool:
    """Tell whether a config trains or evaluates masks.

    Args:
        cfg: the mappers, by their class or by ``mask_on`` or ``use_instance_mask``, the detector's
            ``mask_head``, and the evaluators' ``tasks``.
    """
    by_class = any(is_call_of(m, COCOInstanceNewBaselineDatasetMapper) for m in _mappers(cfg))
    return by_class or _wanted(cfg, MASK_SWITCHES, "mask_head", "segm")


def keypoints_wanted(cfg: DictConfig) -> bool:
    """Tell whether a config trains or evaluates keypoints.

    Args:
        cfg: the mappers' ``keypoint_on`` or ``use_keypoint``, the detector's ``keypoint_head``, and
            the evaluators' ``tasks``.
    """
    return _wanted(cfg, KEYPOINT_SWITCHES, "keypoint_head", "keypoints")


def _mappers(cfg: DictConfig) -> list[Any]:
    return [try_get_key(cfg, f"dataloader.{side}.mapper") for side in ("train", "test")]


def _wanted(cfg: DictConfig, switches: tuple[str, ...], head: str, task: str) -> bool:
    values = [m.get(key) for m in _mappers(cfg) if isinstance(m, DictConfig) for key in switches]
    tasks = [task for node in evaluators_of(cfg) for task in node.get("tasks") or ()]
    has_head = isinstance(try_get_key(cfg, f"model.roi_heads.{head}"), DictConfig)
    return has_head or any(value is True for value in values) or task in tasks


def evaluators_of(cfg: DictConfig) -> list[DictConfig]:
    """List the calls of a config's evaluators, those in a list or in ``DatasetEvaluators`` too."""
    return list(_evaluators(try_get_key(cfg, "dataloader.evaluator")))


def _evaluators(node: Any) -> Iterator[DictConfig]:
    if isinstance(node, ListConfig):
        for part in node:
            yield from _evaluators(part)
    elif isinstance(node, DictConfig) and "evaluators" in node:
        yield from _evaluators(node.evaluators)
    elif isinstance(node, DictConfig):
        yield node


def is_call_of(node: Any, *classes: type) -> bool:
    """Tell whether a part of a config builds or is an object of one of some classes."""
    target = target_of(node) if is_call(node) else type(node)
    return isinstance(target, type) and issubclass(target, classes)


def num_classes_of(cfg: DictConfig) -> tuple[str, int | None]:
    """Find how many classes of objects the detector tells apart.

    Returns:
        The key that says it, and the number; None where the config does not say.
    """
    for key in _NUM_CLASSES:
        number: Any = try_get_key(cfg, key)
        if type(number) is int:
            return key, number
    return _NUM_CLASSES[0], None
