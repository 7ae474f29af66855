r"""DINO-4scale with a ConvNeXt-B trained on ImageNet-22k and 1k at 384, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: ConvNeXt-B
paper:    DINO, arXiv 2203.03605; ConvNeXt, arXiv 2201.03545
command:  detrex train dino/dino_convnext_base_384_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=convnext_base_22k_1k_384.pth
          with the file from the release page of facebookresearch/ConvNeXt
hardware: 8 GPUs, 2 images on each
box AP:   55.1 on COCO val2017, as published by the original detrex; not retrained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train  # noqa: F401
from .models.dino_convnext_tiny_384 import model

model.backbone.depths = [3, 3, 27, 3]
model.backbone.dims = [128, 256, 512, 1024]

model.device = "${train.device}"
train.init_checkpoint = "convnext_base_22k_1k_384.pth"
train.output_dir = "./output/dino_convnext_base_384_4scale_12ep"
