r"""DINO-4scale with an InternImage-L trained on ImageNet-22k at 192 to 384, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: InternImage-L
paper:    DINO, arXiv 2203.03605; InternImage, arXiv 2211.05778
command:  detrex train dino/dino_internimage_large_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=internimage_l_22k_192to384.pth
          with the file from the release page of OpenGVLab/InternImage
hardware: 8 GPUs, 2 images on each
box AP:   57.0 on COCO val2017, as published by the original detrex; not retrained here
"""

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, optimizer, train  # noqa: F401
from .models.dino_internimage_tiny import model

model.backbone.channels = 160
model.backbone.depths = [5, 5, 22, 5]
model.backbone.groups = [10, 20, 40, 80]
model.backbone.drop_path_rate = 0.0
model.backbone.offset_scale = 2.0
model.backbone.post_norm = True

model.device = "${train.device}"
train.init_checkpoint = "internimage_l_22k_192to384.pth"
train.output_dir = "./output/dino_internimage_large_4scale_12ep"
