"""Cascade Mask R-CNN with an FPN over timm's Swin-T, 36 epochs of COCO.

detector: Cascade Mask R-CNN
backbone: Swin-T of timm
paper:    Cascade R-CNN, arXiv 1712.00726; Swin Transformer, arXiv 2103.14030
command:  detrex train cascade_rcnn/cascade_rcnn_swin_tiny_fpn_3x.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from detectron2.config import LazyCall as L

from detrex.config import get_config, get_detectron2_config
from detrex.modeling.backbone import TimmBackbone

model = get_detectron2_config("common/models/cascade_rcnn.py").model
dataloader = get_config("common/data/coco.py").dataloader
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_3x
train = get_config("common/train.py").train
_constants = get_config("common/data/constants.py").constants

model.backbone.bottom_up = L(TimmBackbone)(
    model_name="swin_tiny_patch4_window7_224",
    out_features=["res2", "res3", "res4", "res5"],
    weights=True,
    drop_path_rate=0.2,
)
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std
model.input_format = "RGB"

dataloader.train.mapper.image_format = "${model.input_format}"
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.weight_decay = 0.05

train.max_iter = 270000
train.output_dir = "./output/cascade_rcnn_swin_tiny_fpn_3x"
