"""From a data set's record of an image to what a DETR-like model takes."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances

from detrex.data.outlines import transform_outline
from detrex.data.picture_files import shown
from detrex.data.pictures import (
    augment,
    check_image_size,
    checked_value_range,
    read_image,
    read_labels,
)
from detrex.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_SWITCHES = {"segmentation": "mask_on", "keypoints": "keypoint_on"}


class DetrDatasetMapper:
    """Reads an image, augments it with its objects, and packs both for the model.

    The augmentation is that of DETR (arXiv 2005.12872): half of the training images take
    ``augmentation_with_crop``, the others ``augmentation``. The choice, like all of detectron2's
    augmentations, draws from numpy's global random state.

    Args:
        augmentation: detectron2 augmentations, applied in order.
        augmentation_with_crop: the other half's, which crop; None to use ``augmentation`` for all.
        is_train: whether to keep the objects; if not, only ``augmentation`` is applied.
        mask_on: whether to keep the objects' masks beside their boxes: ``PolygonMasks``, or
            ``BitMasks`` for an image with run lengths among them.
        img_format: the order of the channels, such as ``"RGB"`` or ``"BGR"``.
        min_visible: objects of whose box the augmentation leaves less than this share of the area
            inside the image are dropped in training, 0..1; 0 drops none but the empty ones.
        value_range: the values that become 0 and 255 in pictures of more than 8 bits; see
            :func:`detrex.data.pictures.read_image`.
        keypoint_on: whether to keep the objects' keypoints.
        keypoint_hflip_indices: for each keypoint the number of the one that takes its place when
            the image is flipped from left to right, see
            :func:`detrex.data.keypoints.hflip_indices`.
        recompute_boxes: whether boxes are those of the masks after augmentation. Else they are the
            augmented ones, clipped to the image: looser than need be around an object that a crop
            cut.

    Raises:
        ValueError: if ``min_visible`` or ``value_range`` is out of range, or ``recompute_boxes`` is
            set without ``mask_on``.
    """

    def __init__(
        self,
        augmentation: Sequence[T.Augmentation],
        augmentation_with_crop: Sequence[T.Augmentation] | None,
        is_train: bool = True,
        mask_on: bool = False,
        img_format: str = "RGB",
        min_visible: float = 0.0,
        value_range: Sequence[float] | None = None,
        *,
        keypoint_on: bool = False,
        keypoint_hflip_indices: Sequence[int] | None = None,
        recompute_boxes: bool = False,
    ) -> None:
        if recompute_boxes and not mask_on:
            raise ValueError(
                "recompute_boxes=True takes boxes from masks, but mask_on=False: set mask_on=True."
            )
        if not 0 <= min_visible <= 1:
            raise ValueError(
                f"min_visible is the share of a box that must be left, got {min_visible}: give a "
                "number from 0 to 1."
            )
        self.augmentation = list(augmentation)
        self.augmentation_with_crop = (
            None if augmentation_with_crop is None else list(augmentation_with_crop)
        )
        self.is_train = is_train
        self.mask_on = mask_on
        self.img_format = img_format
        self.min_visible = min_visible
        self.value_range = checked_value_range(value_range)
        self.keypoint_on = keypoint_on
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.recompute_boxes = recompute_boxes
        logger.info(
            "Full TransformGens used in %s: %s, crop: %s",
            "training" if is_train else "inference",
            self.augmentation,
            self.augmentation_with_crop,
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one record; the record itself is left as it is.

        Args:
            dataset_dict: one image in detectron2's standard format.

        Returns:
            The record with ``image``, a tensor ``(3, H, W)`` after augmentation, from 0 to 255:
            uint8, or float32 for a picture of more than 8 bits; in training also ``instances``
            (boxes xyxy in pixels of that image, classes, masks with ``mask_on``, keypoints with
            ``keypoint_on``), without crowds and objects that augmentation left empty, and with no
            ``annotations``; and ``sem_seg``, int64 ``(H, W)``, where the record has a
            ``sem_seg_file_name``, 255 where augmentation padded.

        Raises:
            PictureError: a picture cannot be read or augmented, or has not its record's size.
            DataError: an object has no mask or keypoints, and they are wanted.
            ConfigError: keypoints are flipped without ``keypoint_hflip_indices``.
        """
        record = copy.deepcopy(dataset_dict)
        image = self.read(record)
        check_image_size(record, image)
        labels = self._labels(record, image)
        image, transforms = augment(self._draw_augmentation(), image, record["file_name"])
        record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

        annotations = record.pop("annotations", None)
        if self.is_train and annotations is not None:
            record["instances"] = self._instances(record, annotations, transforms)
        if labels is not None:
            labels = transforms.apply_segmentation(labels).astype(np.int64)
            record["sem_seg"] = torch.from_numpy(labels)
        return record

    def read(self, record: dict[str, Any]) -> np.ndarray:
        """Read the picture of a record; a derived class may read other files, of any channels.

        Args:
            record: one image in detectron2's standard format.

        Returns:
            ``(H, W, C)`` from 0 to 255: uint8, or float32 for more than 8 bits or 4 channels.

        Raises:
            PictureError: the picture cannot be read.
        """
        return read_image(record["file_name"], self.img_format, self.value_range)

    def _labels(self, record: dict[str, Any], image: np.ndarray) -> np.ndarray | None:
        """The class of every pixel of an image as read, where that is known and wanted."""
        path = record.pop("sem_seg_file_name", None)
        if path is None or not self.is_train:
            return None
        labels = read_labels(path)
        check_image_size({**record, "file_name": path}, labels)
        return labels

    def _draw_augmentation(self) -> list[T.Augmentation]:
        if not self.is_train or self.augmentation_with_crop is None or np.random.rand() > 0.5:
            return self.augmentation
        return self.augmentation_with_crop

    def _instances(
        self,
        record: dict[str, Any],
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
    ) -> Instances:
        """The objects, after the image's transforms, within the record's augmented image."""
        size = tuple(record["image"].shape[1:])
        wanted = {"segmentation": self.mask_on, "keypoints": self.keypoint_on}
        flips = sum(isinstance(t, T.HFlipTransform) for t in transforms.transforms) % 2
        if self.keypoint_on and flips and self.keypoint_hflip_indices is None:
            raise ConfigError(
                f"{shown(record['file_name'])} was flipped, which exchanges left and right "
                "keypoints: give the mapper keypoint_hflip_indices, e.g. of detrex.data.keypoints."
            )
        kept = []
        for annotation in annotations:
            if annotation.get("iscrowd", 0) or not self._visible(annotation, transforms, size):
                continue
            for key in wanted:
                if wanted[key] and key not in annotation:
                    raise DataError(
                        f"{shown(record['file_name'])}: an object has no {key}, which the mapper's "
                        f"{_SWITCHES[key]}=True wants: give every object its own, or switch it off."
                    )
            kept.append({k: v for k, v in annotation.items() if wanted.get(k, True)})
        kept = [self._transformed(annotation, transforms, size) for annotation in kept]
        outlines = (annotation.get("segmentation") for annotation in kept)
        kind = "bitmask" if any(isinstance(o, np.ndarray) for o in outlines) else "polygon"
        instances = utils.annotations_to_instances(kept, size, kind)
        if self.recompute_boxes and kept:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)

    def _transformed(
        self, annotation: dict[str, Any], transforms: T.TransformList, size: tuple[int, int]
    ) -> dict[str, Any]:
        outline = annotation.pop("segmentation", None)
        moved = utils.transform_instance_annotations(
            annotation, transforms, size, keypoint_hflip_indices=self.keypoint_hflip_indices
        )
        return (
            moved
            if outline is None
            else moved | {"segmentation": transform_outline(outline, transforms)}
        )

    def _visible(
        self, annotation: dict[str, Any], transforms: T.TransformList, size: tuple[int, int]
    ) -> bool:
        """Whether enough of an object's box is inside the augmented image of ``size`` (H, W)."""
        if self.min_visible == 0:
            return True
        xyxy = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        corners = transforms.apply_box(np.array([xyxy]))[0].reshape(2, 2)
        inside = np.clip(corners, 0, [size[1], size[0]])
        return np.prod(inside[1] - inside[0]) >= self.min_visible * np.prod(corners[1] - corners[0])
