"""The heads of a detector held against each other, and against what the mapper gives them."""

from collections.abc import Iterator
from typing import Any

import detectron2.data.transforms as T
from detectron2.data import DatasetMapper
from omegaconf import DictConfig

from detrex.config.lazy_call import is_call, parameters_of, target_of
from detrex.config.lint import lazy_calls
from detrex.config.validation import peek, read
from detrex.data.dataset_mappers.segmentation_mapper import SegmentationMapper
from detrex.data.detr_dataset_mapper import DetrDatasetMapper
from detrex.data.tasks import is_call_of, num_classes_of

_MAPPER = "dataloader.train.mapper"
_SWITCHES = {
    DetrDatasetMapper: {"mask_head": "mask_on", "keypoint_head": "keypoint_on"},
    DatasetMapper: {"mask_head": "use_instance_mask", "keypoint_head": "use_keypoint"},
}


def head_mistakes(cfg: DictConfig) -> Iterator[str]:
    """Find heads for other numbers of classes than the detector, or without anything to learn from.

    Args:
        cfg: the whole config, without mistakes of other kinds.

    Yields:
        One sentence each, which begins with the key.
    """
    yield from _unlike_classes(cfg)
    mapper = peek(cfg, _MAPPER)
    is_own = is_call_of(mapper, SegmentationMapper) and _package_of(mapper) == "detrex"
    if is_own and _has_head(cfg, "mask_head"):
        yield (
            f"{_MAPPER} gives masks as plain tensors, from which model.roi_heads.mask_head cannot "
            "learn: take DetrDatasetMapper with mask_on=True, and the same augmentation."
        )
    for kind, switches in _SWITCHES.items():
        if isinstance(mapper, DictConfig) and is_call_of(mapper, kind):
            yield from _unfed_heads(cfg, mapper, switches)
            if mapper.get(switches["keypoint_head"]) is True:
                yield from _flips_without_partners(mapper)


def _unlike_classes(cfg: DictConfig) -> Iterator[str]:
    key, number = num_classes_of(cfg)
    for part in ("roi_heads", "head"):
        for path, call in lazy_calls(peek(cfg, f"model.{part}"), f"model.{part}"):
            if _package_of(call) != "detectron2":
                continue  # what a head of another project counts is its own business
            own: Any = read(call, "num_classes")
            agnostic = path.endswith("mask_head") and own == 1
            if number and type(own) is int and own != number and not agnostic:
                yield (
                    f"{path}.num_classes={own} differs from {key}={number}: let it refer to the "
                    f"one, or set both to the data set's number."
                )


def _package_of(node: Any) -> str:
    target = target_of(node) if is_call(node) else type(node)
    return str(getattr(target, "__module__", "")).partition(".")[0]


def _has_head(cfg: DictConfig, head: str) -> bool:
    return isinstance(peek(cfg, f"model.roi_heads.{head}"), DictConfig)


def _unfed_heads(cfg: DictConfig, mapper: DictConfig, switches: dict[str, str]) -> Iterator[str]:
    for head, switch in switches.items():
        if _has_head(cfg, head) and _is_off(mapper, switch):
            what = {"mask_head": "masks", "keypoint_head": "keypoints"}[head]
            yield (
                f"{_MAPPER}.{switch}=False cannot be used: model.roi_heads.{head} learns from "
                f"{what}; set it to True."
            )


def _is_off(mapper: DictConfig, switch: str) -> bool:
    """Whether a switch is written as off, or left at a default that is."""
    if switch in mapper:
        return not mapper[switch]
    parameter = parameters_of(mapper).get(switch)
    return parameter is not None and parameter.default is False


def _flips_without_partners(mapper: DictConfig) -> Iterator[str]:
    if mapper.get("keypoint_hflip_indices") is not None:
        return
    for _, call in lazy_calls(mapper):
        if is_call_of(call, T.RandomFlip) and call.get("horizontal", True):
            yield (
                f"{_MAPPER}.keypoint_hflip_indices is not set, but pictures are flipped, which "
                "exchanges left and right keypoints: set it to "
                "L(detrex.data.keypoints.hflip_indices)(names=[...])."
            )
            return
