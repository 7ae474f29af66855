"""DINO-4scale with a ResNet-50, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: ResNet-50
paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  detrex train dino/dino_r50_4scale_12ep.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   49.2 on COCO val2017, as published by the original detrex; not retrained here
"""

from detrex.config import get_config
from detrex.config.optim import backbone_lr_factor

from .models.dino_r50 import model

dataloader = get_config("common/data/coco_detr.py").dataloader
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_12ep
train = get_config("common/train.py").train

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.output_dir = "./output/dino_r50_4scale_12ep"
train.max_iter = 90000
train.eval_period = 5000
train.log_period = 20
train.checkpointer.period = 5000
train.clip_grad.enabled = True
train.clip_grad.params.max_norm = 0.1
train.clip_grad.params.norm_type = 2
model.device = "${train.device}"

optimizer.lr = 1e-4
optimizer.betas = (0.9, 0.999)
optimizer.weight_decay = 1e-4
optimizer.params.lr_factor_func = backbone_lr_factor

dataloader.train.num_workers = 16
dataloader.train.total_batch_size = 16
dataloader.evaluator.output_dir = "${train.output_dir}"
