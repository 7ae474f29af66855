"""Mappers for models that need more than boxes."""

from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    COCOInstanceNewBaselineDatasetMapper,
)
from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    build_transform_gen as coco_instance_transform_gen,
)

__all__ = ["COCOInstanceNewBaselineDatasetMapper", "coco_instance_transform_gen"]
