r"""DINO-4scale with a Swin-L pretrained on ImageNet-22k at 384, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: Swin-L
paper:    DINO, arXiv 2203.03605; Swin Transformer, arXiv 2103.14030
command:  detrex train dino/dino_swin_large_384_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=swin_large_patch4_window12_384_22k.pth
          with the file from the release page of microsoft/Swin-Transformer
hardware: 8 GPUs, 2 images on each
box AP:   56.9 on COCO val2017, as published by the original detrex; not retrained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train  # noqa: F401
from .models.dino_swin_large_384 import model

model.device = "${train.device}"
train.init_checkpoint = "swin_large_patch4_window12_384_22k.pth"
train.output_dir = "./output/dino_swin_large_384_4scale_12ep"
