"""A small RetinaNet over timm's ResNet-18 learns coloured shapes from random weights.

detector: RetinaNet, small
backbone: ResNet-18 of timm
paper:    Focal Loss for Dense Object Detection, arXiv 1708.02002
command:  python -m detrex.data.demo.shapes output/demo/shapes/data --train 1000 --val 100
          detrex train retinanet/demo_shapes.py
hardware: two CPU cores, about two minutes
box AP:   not a benchmark; docs/which_backbone.md has other backbones in the place of this one
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from detrex.config import get_config, get_detectron2_config
from detrex.modeling.backbone import TimmBackbone

model = get_detectron2_config("common/models/retinanet.py").model
dataloader = get_config("common/data/shapes.py").dataloader
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("dino/demo_shapes.py").lr_multiplier
train = get_config("dino/demo_shapes.py").train
_constants = get_config("common/data/constants.py").constants
_WIDTH = 64

model.backbone.bottom_up = L(TimmBackbone)(model_name="resnet18", out_strides=(8, 16, 32))
model.backbone.out_channels = _WIDTH
model.backbone.top_block = None
model.head.input_shape = [ShapeSpec(channels=_WIDTH)] * 3
model.head.conv_dims = [_WIDTH]
model.head.norm = "GN"
model.head.num_anchors = 2
model.head_in_features = ["p3", "p4", "p5"]
# Shapes have 15 to 45 pixels and are about as wide as high.
model.anchor_generator.sizes = [[20, 28], [40, 56], [80, 112]]
model.anchor_generator.aspect_ratios = [1.0]
model.anchor_generator.strides = [8, 16, 32]
model.num_classes = 3
model.input_format = "RGB"
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std

dataloader.train.dataset.names.num_classes = "${model.num_classes}"
dataloader.test.dataset.names.num_classes = "${model.num_classes}"
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4

train.output_dir = "output/demo/retinanet/run"
train.max_iter = 300
train.eval_period = 0
train.clip_grad.params.max_norm = 1.0
