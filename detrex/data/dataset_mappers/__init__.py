"""Mappers for models that need more than boxes."""

from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    COCOInstanceNewBaselineDatasetMapper,
)
from detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper import (
    build_transform_gen as coco_instance_transform_gen,
)
from detrex.data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper import (
    COCOPanopticNewBaselineDatasetMapper,
)
from detrex.data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper import (
    build_transform_gen as coco_panoptic_transform_gen,
)
from detrex.data.dataset_mappers.mask_former_instance_dataset_mapper import (
    MaskFormerInstanceDatasetMapper,
)
from detrex.data.dataset_mappers.mask_former_panoptic_dataset_mapper import (
    MaskFormerPanopticDatasetMapper,
)
from detrex.data.dataset_mappers.mask_former_semantic_dataset_mapper import (
    MaskFormerSemanticDatasetMapper,
)
from detrex.data.dataset_mappers.mask_former_semantic_dataset_mapper import (
    build_transform_gen as maskformer_semantic_transform_gen,
)

__all__ = [
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerSemanticDatasetMapper",
    "coco_instance_transform_gen",
    "coco_panoptic_transform_gen",
    "maskformer_semantic_transform_gen",
]
