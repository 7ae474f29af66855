"""DINO-4scale with ViTDet-B pretrained by MAE, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: ViT-B, as ViTDet
paper:    DINO, arXiv 2203.03605; ViTDet, arXiv 2203.16527; MAE, arXiv 2111.06377
command:  detrex train dino/dino_vitdet_base_4scale_12ep.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   50.2 on COCO val2017, as published by the original detrex; not retrained here
"""

from functools import partial

from detrex.config import get_config
from detrex.modeling.backbone import get_vit_lr_decay_rate

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, train  # noqa: F401
from .models.dino_vitdet_base import model

optimizer = get_config("common/optim.py").AdamW
optimizer.lr = 1e-4
optimizer.betas = (0.9, 0.999)
optimizer.weight_decay = 1e-4
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=12)
optimizer.params.overrides = {"pos_embed": {"weight_decay": 0.0}}
optimizer.params.weight_decay_norm = None

model.device = "${train.device}"
train.init_checkpoint = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth"
train.output_dir = "./output/dino_vitdet_base_4scale_12ep"
