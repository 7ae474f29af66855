"""Data sets, and the mappers and augmentations between them and a model.

Importing registers no data set; `detrex.data.datasets.register_coco_json` does, when called.
"""

from detrex.data import datasets
from detrex.data.dataset_mappers import (
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerSemanticDatasetMapper,
)
from detrex.data.detr_dataset_mapper import DetrDatasetMapper
from detrex.data.transforms import ColorAugSSDTransform

__all__ = [
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "ColorAugSSDTransform",
    "DetrDatasetMapper",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerSemanticDatasetMapper",
    "datasets",
]
