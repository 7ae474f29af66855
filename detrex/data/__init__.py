"""Data sets, and the mappers and augmentations between them and a model.

Importing registers no data set; `detrex.data.datasets.register_coco_json` does, when called.
"""

from detrex.data import datasets
from detrex.data.detr_dataset_mapper import DetrDatasetMapper

__all__ = ["DetrDatasetMapper", "datasets"]
