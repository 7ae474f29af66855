r"""DINO-4scale with an EVA-giant at 1280, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: EVA-giant, images of 1280
paper:    DINO, arXiv 2203.03605; EVA, arXiv 2211.07636; ViTDet, arXiv 2203.16527
command:  detrex train dino/dino_eva_01_1280_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=eva_o365.pth
          with the file from the release page of baaivision/EVA
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from functools import partial

from detrex.modeling.backbone import get_vit_lr_decay_rate

from .dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep import (  # noqa: F401
    dataloader,
    lr_multiplier,
    optimizer,
    train,
)
from .models.dino_eva_01 import model

optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.9, num_layers=40)

model.device = "${train.device}"
train.init_checkpoint = "eva_o365.pth"
train.output_dir = "./output/dino_eva_01_1280_4scale_12ep"
