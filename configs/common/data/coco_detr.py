"""COCO 2017 with the augmentation of DETR (arXiv 2005.12872, section A.4).

Training: a flip, then a resize of the shorter side to 480-800 (longer at most 1333); half of the
time, a random crop comes between. Testing: the shorter side 800, the longer at most 1333.
detectron2 looks for the pictures under the environment variable `DETECTRON2_DATASETS`.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.evaluation import COCOEvaluator
from omegaconf import OmegaConf

from detrex.data import DetrDatasetMapper
from detrex.data.loader import build_train_loader

SHORT_SIDES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)


def _resize():
    return L(T.ResizeShortestEdge)(
        short_edge_length=SHORT_SIDES, max_size=1333, sample_style="choice"
    )


dataloader = OmegaConf.create()

# A picture that cannot be read: "error" ends the run, "skip" leaves it out and counts it.
dataloader.on_bad_image = "error"

dataloader.train = L(build_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_train"),
    mapper=L(DetrDatasetMapper)(
        augmentation=[L(T.RandomFlip)(), _resize()],
        augmentation_with_crop=[
            L(T.RandomFlip)(),
            L(T.ResizeShortestEdge)(short_edge_length=(400, 500, 600), sample_style="choice"),
            L(T.RandomCrop)(crop_type="absolute_range", crop_size=(384, 600)),
            _resize(),
        ],
        is_train=True,
        mask_on=False,
        img_format="RGB",
    ),
    total_batch_size=16,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(DetrDatasetMapper)(
        augmentation=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        augmentation_with_crop=None,
        is_train=False,
        mask_on=False,
        img_format="RGB",
    ),
    num_workers=4,
)

dataloader.evaluator = L(COCOEvaluator)(
    dataset_name="${..test.dataset.names}",
    use_fast_impl=True,  # by faster-coco-eval where it is installed; False for pycocotools
)
