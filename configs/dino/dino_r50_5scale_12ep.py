"""DINO-5scale with a ResNet-50 (strides 4 to 64), 12 epochs of COCO.

paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  python tools/train_net.py --config-file configs/dino/dino_r50_5scale_12ep.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   49.6 on COCO val2017, as published by the original detrex; not retrained here
"""

from detectron2.layers import ShapeSpec

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.out_features = ["res2", "res3", "res4", "res5"]
model.neck.input_shapes = {
    "res2": ShapeSpec(channels=256),
    "res3": ShapeSpec(channels=512),
    "res4": ShapeSpec(channels=1024),
    "res5": ShapeSpec(channels=2048),
}
model.neck.in_features = ["res2", "res3", "res4", "res5"]
model.neck.num_outs = 5

train.output_dir = "./output/dino_r50_5scale_12ep"
