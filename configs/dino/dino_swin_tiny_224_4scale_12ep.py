r"""DINO-4scale with a Swin-T pretrained on ImageNet-1k at 224, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: Swin-T
paper:    DINO, arXiv 2203.03605; Swin Transformer, arXiv 2103.14030
command:  detrex train dino/dino_swin_tiny_224_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=swin_tiny_patch4_window7_224.pth
          with the file from the release page of microsoft/Swin-Transformer
hardware: 8 GPUs, 2 images on each
box AP:   51.3 on COCO val2017, as published by the original detrex; not retrained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train  # noqa: F401
from .models.dino_swin_tiny_224 import model

model.device = "${train.device}"
train.init_checkpoint = "swin_tiny_patch4_window7_224.pth"
train.output_dir = "./output/dino_swin_tiny_224_4scale_12ep"
