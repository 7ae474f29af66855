"""Mask R-CNN with an FPN over timm's ConvNeXt-T, 36 epochs of COCO.

detector: Mask R-CNN
backbone: ConvNeXt-T of timm
paper:    Mask R-CNN, arXiv 1703.06870; ConvNeXt, arXiv 2201.03545
command:  detrex train mask_rcnn/mask_rcnn_convnext_tiny_fpn_3x.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from detectron2.config import LazyCall as L

from detrex.config import get_config, get_detectron2_config
from detrex.modeling.backbone import TimmBackbone

model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
dataloader = get_config("common/data/coco.py").dataloader
optimizer = get_config("common/optim.py").AdamWLayerDecay
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_3x
train = get_config("common/train.py").train
_constants = get_config("common/data/constants.py").constants

model.backbone.bottom_up = L(TimmBackbone)(
    model_name="convnext_tiny.fb_in22k",
    out_features=["res2", "res3", "res4", "res5"],
    weights=True,
    drop_path_rate=0.4,
)
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std
model.input_format = "RGB"

dataloader.train.mapper.image_format = "${model.input_format}"
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.weight_decay = 0.05
optimizer.params.decay_rate = 0.95
optimizer.params.num_layers = 6

train.max_iter = 270000
train.output_dir = "./output/mask_rcnn_convnext_tiny_fpn_3x"
