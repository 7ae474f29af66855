"""RetinaNet over torchvision's ResNet-50 with its newer ImageNet weights, 12 epochs of COCO.

detector: RetinaNet
backbone: ResNet-50 of torchvision
paper:    Focal Loss for Dense Object Detection, arXiv 1708.02002
command:  detrex train retinanet/retinanet_torchvision_r50_fpn_1x.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from detectron2.config import LazyCall as L

from detrex.config import get_config, get_detectron2_config
from detrex.modeling.backbone import TorchvisionBackbone

model = get_detectron2_config("common/models/retinanet.py").model
dataloader = get_config("common/data/coco.py").dataloader
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train = get_config("common/train.py").train
_constants = get_config("common/data/constants.py").constants

model.backbone.bottom_up = L(TorchvisionBackbone)(
    model_name="resnet50",
    out_features=["res3", "res4", "res5"],
    weights="IMAGENET1K_V2",
    frozen_norm=True,
    freeze_at=2,
)
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std
model.input_format = "RGB"

dataloader.train.mapper.image_format = "${model.input_format}"
dataloader.train.mapper.use_instance_mask = False
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.lr = 0.01

train.output_dir = "./output/retinanet_torchvision_r50_fpn_1x"
