"""FCOS over timm's DLA-34, 12 epochs of COCO.

detector: FCOS
backbone: DLA-34 of timm
paper:    FCOS, arXiv 2006.09214; Deep Layer Aggregation, arXiv 1707.06484
command:  detrex train fcos/fcos_dla34_fpn_1x.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from detectron2.config import LazyCall as L

from detrex.config import get_config, get_detectron2_config
from detrex.modeling.backbone import TimmBackbone

model = get_detectron2_config("common/models/fcos.py").model
dataloader = get_config("common/data/coco.py").dataloader
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train = get_config("common/train.py").train
_constants = get_config("common/data/constants.py").constants

model.backbone.bottom_up = L(TimmBackbone)(
    model_name="dla34",
    out_features=["res3", "res4", "res5"],
    weights=True,
    frozen_norm=True,
    freeze_at=2,
)
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std

# FCOS takes images as they come.
dataloader.train.mapper.image_format = "RGB"
dataloader.train.mapper.use_instance_mask = False
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.lr = 0.01

train.output_dir = "./output/fcos_dla34_fpn_1x"
