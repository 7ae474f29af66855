"""From a data set's record of an image to what a DETR-like model takes."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from detrex.data.pictures import augment, check_image_size, checked_value_range, read_image

logger = logging.getLogger(__name__)


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
            ``BitMasks`` for an image with run lengths among them; fvcore needs the package shapely
            to crop polygons.
        img_format: the order of the channels, such as ``"RGB"`` or ``"BGR"``.
        min_visible: objects of whose box the augmentation leaves less than this share of the area
            inside the image are dropped in training, 0..1; 0 drops none but the empty ones.
        value_range: the values that become 0 and 255 in pictures of more than 8 bits; see
            :func:`detrex.data.pictures.read_image`.

    Raises:
        ValueError: if ``min_visible`` or ``value_range`` is out of range.
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
    ) -> None:
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
            (boxes xyxy in pixels of that image, classes, masks with ``mask_on``), without crowds
            and objects that augmentation left empty, and with no ``annotations``.

        Raises:
            PictureError: the picture cannot be read or augmented, or has not its record's size.
        """
        record = copy.deepcopy(dataset_dict)
        image = read_image(record["file_name"], self.img_format, self.value_range)
        check_image_size(record, image)
        image, transforms = augment(self._draw_augmentation(), image, record["file_name"])
        record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

        annotations = record.pop("annotations", None)
        if self.is_train and annotations is not None:
            record["instances"] = self._instances(annotations, transforms, image.shape[:2])
        return record

    def _draw_augmentation(self) -> list[T.Augmentation]:
        if not self.is_train or self.augmentation_with_crop is None or np.random.rand() > 0.5:
            return self.augmentation
        return self.augmentation_with_crop

    def _instances(
        self, annotations: list[dict[str, Any]], transforms: T.TransformList, size: tuple[int, int]
    ) -> Any:
        """The objects, after the image's transforms, within an image of ``size`` (H, W)."""
        unused = {"keypoints"} if self.mask_on else {"keypoints", "segmentation"}
        kept = [
            utils.transform_instance_annotations(
                {key: value for key, value in annotation.items() if key not in unused},
                transforms,
                size,
            )
            for annotation in annotations
            if annotation.get("iscrowd", 0) == 0 and self._visible(annotation, transforms, size)
        ]
        outlines = (annotation.get("segmentation") for annotation in kept)
        kind = "bitmask" if any(isinstance(o, np.ndarray) for o in outlines) else "polygon"
        return utils.filter_empty_instances(utils.annotations_to_instances(kept, size, kind))

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
