r"""DINO-4scale with a FocalNet-B trained on ImageNet-1k, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: FocalNet-B, 3 focal levels
paper:    DINO, arXiv 2203.03605; FocalNet, arXiv 2203.11926
command:  detrex train dino/dino_focal_base_lrf_fl3_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=focalnet_base_lrf.pth
          with the file from the release page of microsoft/FocalNet
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train  # noqa: F401
from .models.dino_focal_tiny import model

model.backbone.depths = [2, 2, 18, 2]
model.backbone.embed_dim = 128

model.device = "${train.device}"
train.init_checkpoint = "focalnet_base_lrf.pth"
train.output_dir = "./output/dino_focal_base_lrf_fl3_4scale_12ep"
