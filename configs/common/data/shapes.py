"""Coloured shapes to learn without a download, with boxes, masks and keypoints.

`python -m detrex.data.demo.shapes FOLDER` writes the pictures and annotations; `dataloader.folder`
names FOLDER. Masks and keypoints are kept where they are asked for::

    dataloader.train.mapper.mask_on = True
    dataloader.train.mapper.keypoint_on = True
    dataloader.evaluator.kpt_oks_sigmas = [0.05] * 6

Pictures come as they are, RGB and 128 x 128 pixels, flipped half of the time in training.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.evaluation import COCOEvaluator

from detrex.data import DetrDatasetMapper
from detrex.data.datasets import register_coco_json
from detrex.data.demo.shapes import KEYPOINTS
from detrex.data.keypoints import hflip_indices
from detrex.data.loader import build_train_loader


def _dataset(name, filter_empty):
    return L(get_detection_dataset_dicts)(
        names=L(register_coco_json)(
            name=f"demo_shapes_{name}",
            json_file=f"${{dataloader.folder}}/{name}/annotations.json",
            image_root=f"${{dataloader.folder}}/{name}/images",
        ),
        filter_empty=filter_empty,
    )


def _mapper(is_train, augmentation):
    return L(DetrDatasetMapper)(
        augmentation=augmentation,
        augmentation_with_crop=None,
        is_train=is_train,
        mask_on=False,
        img_format="RGB",
        keypoint_on=False,
        keypoint_hflip_indices=hflip_indices(KEYPOINTS),
    )


dataloader = dict(
    folder="output/demo/shapes/data",
    on_bad_image="error",
    train=L(build_train_loader)(
        dataset=_dataset("train", filter_empty=True),
        mapper=_mapper(True, [L(T.RandomFlip)()]),
        total_batch_size=8,
        num_workers=0,
    ),
    test=L(build_detection_test_loader)(
        dataset=_dataset("val", filter_empty=False),
        mapper=_mapper(False, []),
        num_workers=0,
    ),
    evaluator=L(COCOEvaluator)(
        dataset_name="${..test.dataset.names}",
        use_fast_impl=True,  # by faster-coco-eval where it is installed; False for pycocotools
    ),
)
