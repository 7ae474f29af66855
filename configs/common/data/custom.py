"""A data set of your own in COCO's format, with the augmentation of `coco_detr.py`.

The paths come from the command line::

    dataloader.train.dataset.names.json_file=train.json
    dataloader.train.dataset.names.image_root=train/
    dataloader.test.dataset.names.json_file=val.json
    dataloader.test.dataset.names.image_root=val/

or from `DETREX_TRAIN_JSON`, `DETREX_TRAIN_IMAGES`, `DETREX_VAL_JSON` and `DETREX_VAL_IMAGES` in the
environment. They are looked at when a loader is built, and the data sets are registered then; the
number of categories has to be the model's `num_classes`.
"""

from detectron2.config import LazyCall as L

from detrex.data.datasets import register_coco_json

from .coco_detr import dataloader

dataloader.train.dataset.names = L(register_coco_json)(
    name="my_dataset_train",
    json_file="${oc.env:DETREX_TRAIN_JSON,null}",
    image_root="${oc.env:DETREX_TRAIN_IMAGES,null}",
    num_classes="${model.num_classes}",
)

dataloader.test.dataset.names = L(register_coco_json)(
    name="my_dataset_test",
    json_file="${oc.env:DETREX_VAL_JSON,null}",
    image_root="${oc.env:DETREX_VAL_IMAGES,null}",
    num_classes="${model.num_classes}",
)
