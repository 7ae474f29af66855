r"""DINO-4scale with a FocalNet-L trained on ImageNet-22k at 384, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: FocalNet-L, 3 focal levels
paper:    DINO, arXiv 2203.03605; FocalNet, arXiv 2203.11926
command:  detrex train dino/dino_focalnet_large_lrf_384_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=focalnet_large_lrf_384.pth
          with the file from the release page of microsoft/FocalNet
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train  # noqa: F401
from .models.dino_focalnet_large_384 import model

model.device = "${train.device}"
train.init_checkpoint = "focalnet_large_lrf_384.pth"
train.output_dir = "./output/dino_focalnet_large_lrf_384_4scale_12ep"
