"""What the mappers of masks share: an image, augmented with all that labels its pixels."""

import copy
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances
from jaxtyping import Bool

from detrex.data.pictures import (
    augment,
    check_image_size,
    checked_value_range,
    read_image,
    read_labels,
)
from detrex.data.transforms import ColorAugSSDTransform

logger = logging.getLogger(__name__)

_GREY = 128
_CROPS = ("relative_range", "relative", "absolute", "absolute_range")


class SegmentationMapper:
    """Reads an image and augments it; the class that inherits adds what is to be learnt.

    Args:
        is_train: whether to add it.
        augmentation: detectron2 augmentations, in order.
        image_format: the order of the channels, such as ``"RGB"`` or ``"BGR"``.
        value_range: the values that become 0 and 255 in pictures of more than 8 bits; see
            :func:`detrex.data.pictures.read_image`.
        size_divisibility: multiple of pixels to which the right and the bottom are filled with
            grey; 0 or less leaves the image as it is.

    Raises:
        ValueError: if ``value_range`` is no range.
        TypeError: if ``augmentation`` is no sequence, or ``size_divisibility`` no integer.
    """

    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentation: Sequence[T.Augmentation],
        image_format: str,
        value_range: Sequence[float] | None = None,
        size_divisibility: int = 0,
    ) -> None:
        if not isinstance(augmentation, Iterable) or isinstance(augmentation, str):
            raise TypeError(
                f"{type(self).__name__} takes a list of augmentations, got {augmentation!r:.80}."
            )
        if type(size_divisibility) is not int:
            raise TypeError(f"size_divisibility is an integer, got {size_divisibility!r:.80}.")
        self.tfm_gens = list(augmentation)
        self.img_format = image_format
        self.is_train = is_train
        self.value_range = checked_value_range(value_range)
        self.size_divisibility = size_divisibility
        logger.info(
            "Full TransformGens used in %s: %s",
            "training" if is_train else "inference",
            self.tfm_gens,
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one record; the record itself is left as it is.

        Args:
            dataset_dict: one image in detectron2's standard format.

        Returns:
            The record with ``image``, uint8 ``(3, H, W)`` (float32 for a picture of more than 8
            bits), and ``padding_mask``, bool ``(H, W)``, true where the image was padded; in
            training also what is to be learnt, and no ``annotations``. ``instances`` hold
            ``gt_classes``, ``gt_masks`` (bool tensor ``(n, H, W)``) and ``gt_boxes`` (tight around
            the masks, xyxy in pixels), without crowds and objects left empty.

        Raises:
            PictureError: a picture cannot be read or augmented, or has not its record's size.
            DataError: the record lacks what is to be learnt.
        """
        record = copy.deepcopy(dataset_dict)
        image = read_image(record["file_name"], self.img_format, self.value_range)
        check_image_size(record, image)
        labels = self.read_labels(record) if self.is_train else None
        inside = np.ones(image.shape[:2], dtype=np.uint8)
        image, transforms = augment(self.tfm_gens, image, record["file_name"], labels)
        if self.size_divisibility > 0:
            height, width = image.shape[:2]
            right, bottom = -width % self.size_divisibility, -height % self.size_divisibility
            pad = T.PadTransform(0, 0, right, bottom, pad_value=_GREY, seg_pad_value=255)
            image, transforms = pad.apply_image(image), transforms + pad
        # A crop pads labels with 255 by default, and 0 stands for nothing else.
        padded = torch.from_numpy(np.ascontiguousarray(transforms.apply_segmentation(inside) != 1))
        record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        record["padding_mask"] = padded
        self.add_targets(record, labels, transforms)
        record.pop("annotations", None)
        return record

    def read_labels(self, record: dict[str, Any]) -> np.ndarray | None:
        """Read the class of every pixel.

        Args:
            record: what is read is taken out of it.

        Returns:
            ``(H, W)``, where the mapper learns from it.
        """
        return None

    def add_targets(
        self, record: dict[str, Any], labels: np.ndarray | None, transforms: T.TransformList
    ) -> None:
        """Add what is to be learnt to a record.

        Args:
            record: with the augmented ``image`` and the ``padding_mask``.
            labels: class of every pixel as read, ``(H, W)``, None where the mapper reads none.
            transforms: of the image, in order.
        """
        raise NotImplementedError


def labels_of(record: dict[str, Any], key: str) -> np.ndarray:
    """Read the picture of classes that belongs to a record's image.

    Args:
        record: the picture's name is taken out of it.
        key: of the name.

    Returns:
        ``(H, W)``.

    Raises:
        PictureError: it cannot be read, or has another size than the image.
    """
    path = record.pop(key)
    labels = read_labels(path)
    check_image_size({**record, "file_name": path}, labels)
    return labels


def instances_of(masks: Bool[torch.Tensor, "n h w"], classes: Sequence[int]) -> Instances:
    """Pack objects for a model.

    Args:
        masks: bool ``(n, H, W)``.
        classes: ``n`` numbers of classes.

    Returns:
        Those whose mask is not empty, with ``gt_classes``, ``gt_masks`` and ``gt_boxes``.
    """
    instances = Instances(tuple(masks.shape[1:]))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = masks
    instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    return instances[masks.flatten(1).any(1)]


def resize_crop_flip(
    min_size_train: int | Sequence[int],
    max_size_train: int,
    min_size_train_sampling: str,
    crop: T.Augmentation | None,
    color_aug_ssd: bool,
    img_format: str,
    is_train: bool,
) -> list[T.Augmentation]:
    """The augmentations of MaskFormer (arXiv 2107.06278): resize, crop, distort colours, flip.

    Args:
        min_size_train: length of the shorter side in pixels: one, several to choose from, or the
            least and the greatest.
        max_size_train: greatest length of the longer side.
        min_size_train_sampling: ``"choice"`` or ``"range"``.
        crop: how to crop, None for not at all.
        color_aug_ssd: whether to distort colours.
        img_format: the order of the channels.
        is_train: has to be true.

    Returns:
        detectron2 augmentations, in order.

    Raises:
        ValueError: if ``is_train`` is false, or the sampling is something else or does not fit.
    """
    if not is_train:
        raise ValueError("MaskFormer's augmentation is for training: is_train must be True.")
    sizes = [*min_size_train] if isinstance(min_size_train, Sequence) else [min_size_train]
    for size in (*(sizes or [0]), max_size_train):
        if type(size) is not int or size < 1:
            raise ValueError(
                "min_size_train and max_size_train are lengths in pixels from 1 on, got "
                f"{min_size_train!r:.80} and {max_size_train!r:.80}."
            )
    if min_size_train_sampling not in ("choice", "range") or (
        min_size_train_sampling == "range" and len(sizes) > 2
    ):
        raise ValueError(
            "min_size_train_sampling must be 'choice', or 'range' with the least and the greatest "
            f"of min_size_train, got {min_size_train_sampling!r} with {sizes}."
        )
    colours = [ColorAugSSDTransform(img_format=img_format)] if color_aug_ssd else []
    shorter = sizes if len(sizes) > 1 else sizes[0]
    resize = T.ResizeShortestEdge(shorter, max_size_train, min_size_train_sampling)
    return [resize, *([] if crop is None else [crop]), *colours, T.RandomFlip()]


def check_crop_type(crop_type: str) -> None:
    """Check how a crop's size is meant.

    Args:
        crop_type: as for detectron2's ``RandomCrop``.

    Raises:
        ValueError: it is unknown.
    """
    if crop_type not in _CROPS:
        raise ValueError(f"crop_type must be one of {', '.join(_CROPS)}, got {crop_type!r}.")
