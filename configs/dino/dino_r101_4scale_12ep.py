"""DINO-4scale with a ResNet-101, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: ResNet-101
paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  detrex train dino/dino_r101_4scale_12ep.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   50.0 on COCO val2017, as published by the original detrex; not retrained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.stages.depth = 101

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
train.output_dir = "./output/dino_r101_4scale_12ep"
