"""Objects with masks for models that predict masks (MaskFormer, arXiv 2107.06278)."""

from collections.abc import Sequence

from detectron2.data import transforms as T

from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    COCOInstanceNewBaselineDatasetMapper,
)
from detrex.data.dataset_mappers.segmentation_mapper import check_crop_type, resize_crop_flip


def build_transform_gen(
    min_size_train: int | Sequence[int],
    max_size_train: int,
    min_size_train_sampling: str,
    enabled_crop: bool,
    crop_type: str,
    crop_size: Sequence[float],
    color_aug_ssd: bool,
    img_format: str,
    is_train: bool = True,
) -> list[T.Augmentation]:
    """The augmentations of MaskFormer for instances.

    Arguments are those of `resize_crop_flip`; with ``enabled_crop`` the crop is detectron2's
    ``RandomCrop(crop_type, crop_size)``.

    Returns:
        detectron2 augmentations, in order.

    Raises:
        ValueError: see `resize_crop_flip`; or an unknown ``crop_type``.
    """
    crop = None
    if enabled_crop:
        check_crop_type(crop_type)
        crop = T.RandomCrop(crop_type, tuple(crop_size))
    return resize_crop_flip(
        min_size_train,
        max_size_train,
        min_size_train_sampling,
        crop,
        color_aug_ssd,
        img_format,
        is_train,
    )


class MaskFormerInstanceDatasetMapper(COCOInstanceNewBaselineDatasetMapper):
    """Reads an image and its objects' boxes and masks, augments them, and fills the image up.

    Args:
        is_train: whether to keep the objects.
        augmentations: detectron2 augmentations, in order.
        image_format: see `SegmentationMapper`.
        size_divisibility: see `SegmentationMapper`.
        value_range: see `SegmentationMapper`.
    """

    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        size_divisibility: int,
        value_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            is_train,
            augmentation=augmentations,
            image_format=image_format,
            value_range=value_range,
            size_divisibility=size_divisibility,
        )
