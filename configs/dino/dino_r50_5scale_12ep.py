"""DINO-5scale with a ResNet-50 (strides 4 to 64), 12 epochs of COCO.

detector: DINO, 5 scales
backbone: ResNet-50
paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  detrex train dino/dino_r50_5scale_12ep.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   49.6 on COCO val2017, as published by the original detrex; not retrained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.out_features = ["res2", "res3", "res4", "res5"]
model.neck.num_outs = 5

train.output_dir = "./output/dino_r50_5scale_12ep"
