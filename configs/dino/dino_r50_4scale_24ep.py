"""DINO-4scale with a ResNet-50, 24 epochs of COCO.

detector: DINO, 4 scales
backbone: ResNet-50
paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  detrex train dino/dino_r50_4scale_24ep.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   50.6 on COCO val2017, as published by the original detrex; not retrained here
"""

from detrex.config import get_config

from .dino_r50_4scale_12ep import dataloader, model, optimizer, train  # noqa: F401

lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_24ep

train.max_iter = 180000
train.output_dir = "./output/dino_r50_4scale_24ep"
