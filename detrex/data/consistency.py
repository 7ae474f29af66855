"""A data set held against the detector, the mapper and the evaluators of a config."""

from collections.abc import Sized
from typing import Any

from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from omegaconf import DictConfig

from detrex.config import try_get_key
from detrex.config.lazy_call import is_call
from detrex.config.lint import lazy_calls
from detrex.data.coco.classes import class_names
from detrex.data.coco.document import Document
from detrex.data.coco.keypoints import keypoint_names
from detrex.data.datasets import CocoJson, check_num_classes
from detrex.data.tasks import evaluators_of, is_call_of, keypoints_wanted, num_classes_of
from detrex.errors import ConfigError

_NUM_KEYPOINTS = "model.roi_heads.keypoint_head.num_keypoints"
_NUM_STUFF = "model.sem_seg_head.num_classes"
_COCO_KEYPOINTS = 17


def check_consistent(cfg: DictConfig, dataset: CocoJson, document: Document, side: str) -> None:
    """Check that a data set is what the config's other parts take it for.

    Args:
        cfg: the whole config.
        dataset: one of its data sets.
        document: the data set's annotations, after all checks and without errors.
        side: ``"train"`` or ``"test"``.

    Raises:
        ConfigError: another number of classes or keypoints, or masks of a form that the mapper
            does not take.
    """
    key, number = num_classes_of(cfg)
    check_num_classes(dataset.name, class_names(document), number, key)
    if keypoints_wanted(cfg) and document.annotations:
        _check_keypoints(cfg, dataset.name, document, side)
    if side == "train":
        _check_mask_format(cfg, dataset.name, document)
        if _has_pixel_head(cfg):
            raise ConfigError(
                f"Data set {dataset.name!r} has objects only, but model.sem_seg_head learns the "
                "class of every pixel: name a data set whose records have sem_seg_file_name, such "
                "as those of detectron2's register_coco_panoptic_separated."
            )


def check_registered(cfg: DictConfig, name: str) -> None:
    """Check what detectron2's catalogue says of a data set that is not in COCO's format.

    Args:
        cfg: the whole config.
        name: of the data set.

    Raises:
        ConfigError: another number of classes than the detector's, of objects or of pixels.
    """
    metadata = MetadataCatalog.get(name)
    key, number = num_classes_of(cfg)
    is_semantic = str(metadata.get("evaluator_type")).endswith("sem_seg")
    if (things := metadata.get("thing_classes")) and not is_semantic:
        check_num_classes(name, things, number, key)
    of_pixels: Any = try_get_key(cfg, _NUM_STUFF) if _has_pixel_head(cfg) else None
    if (stuff := metadata.get("stuff_classes")) and type(of_pixels) is int:
        check_num_classes(name, stuff, of_pixels, _NUM_STUFF)


def _has_pixel_head(cfg: DictConfig) -> bool:
    """Whether a detector learns the class of each pixel; MaskFormer's head learns segments."""
    head = try_get_key(cfg, "model.sem_seg_head")
    is_group = isinstance(head, DictConfig)
    return is_group and (not is_call(head) or is_call_of(head, SemSegFPNHead))


def _check_keypoints(cfg: DictConfig, name: str, document: Document, side: str) -> None:
    names = keypoint_names(document)
    count = len(names) or len(document.annotations[0]["keypoints"]) // 3
    number: Any = try_get_key(cfg, _NUM_KEYPOINTS)
    if type(number) is int and number != count:
        listed = f" ({', '.join(names[:5])}{', ...' if count > 5 else ''})" if names else ""
        raise ConfigError(
            f"Data set {name!r} has {count} keypoints{listed}, but the model is for {number}: set "
            f"{_NUM_KEYPOINTS}={count}."
        )
    indices = try_get_key(cfg, "dataloader.train.mapper.keypoint_hflip_indices")
    known = isinstance(indices, Sized) and not isinstance(indices, DictConfig)
    if side == "train" and known and len(indices) != count:
        raise ConfigError(
            f"dataloader.train.mapper.keypoint_hflip_indices has {len(indices)} numbers, but data "
            f"set {name!r} has {count} keypoints: give one for each."
        )
    for node in evaluators_of(cfg) if side == "test" else []:
        sigmas = node.get("kpt_oks_sigmas") or ()
        tasks = node.get("tasks") or ("keypoints",)  # by default what the predictions have
        reads_them = is_call_of(node, COCOEvaluator) and "keypoints" in tasks
        if reads_them and (len(sigmas) or _COCO_KEYPOINTS) != count:
            raise ConfigError(
                f"dataloader.evaluator.kpt_oks_sigmas has {len(sigmas)} numbers, but data set "
                f"{name!r} has {count} keypoints: give one standard deviation for each, as a share "
                "of an object's size (COCO's go from 0.025 to 0.107)."
            )


def _check_mask_format(cfg: DictConfig, name: str, document: Document) -> None:
    """Refuse run lengths where detectron2's mapper expects polygons, or pads them as objects."""
    mapper = try_get_key(cfg, "dataloader.train.mapper")
    if not (is_call_of(mapper, DatasetMapper) and isinstance(mapper, DictConfig)):
        return
    objects = (a for a in document.kept_annotations() if not a["iscrowd"])
    has_run_lengths = any(isinstance(a.get("segmentation"), dict) for a in objects)
    if not mapper.get("use_instance_mask") or not has_run_lengths:
        return
    if mapper.get("instance_mask_format") != "bitmask":
        raise ConfigError(
            f"Data set {name!r} has masks as run lengths, but dataloader.train.mapper takes "
            "polygons: set dataloader.train.mapper.instance_mask_format=bitmask."
        )
    pads = (call for _, call in lazy_calls(mapper) if is_call_of(call, T.FixedSizeCrop))
    if any(call.get("seg_pad_value", 255) for call in pads):
        raise ConfigError(
            f"Data set {name!r} has masks as run lengths, which dataloader.train.mapper pads with "
            "FixedSizeCrop's seg_pad_value, 255, as if that were the object: set seg_pad_value=0, "
            "or take detrex.data.DetrDatasetMapper."
        )
