r"""DINO-4scale with an InternImage-B trained on ImageNet-1k at 224, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: InternImage-B
paper:    DINO, arXiv 2203.03605; InternImage, arXiv 2211.05778
command:  detrex train dino/dino_internimage_base_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=internimage_b_1k_224.pth
          with the file from the release page of OpenGVLab/InternImage
hardware: 8 GPUs, 2 images on each
box AP:   54.7 on COCO val2017, as published by the original detrex; not retrained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train  # noqa: F401
from .models.dino_internimage_tiny import model

model.backbone.channels = 112
model.backbone.depths = [4, 4, 21, 4]
model.backbone.groups = [7, 14, 28, 56]
model.backbone.post_norm = True

model.device = "${train.device}"
train.init_checkpoint = "internimage_b_1k_224.pth"
train.output_dir = "./output/dino_internimage_base_4scale_12ep"
