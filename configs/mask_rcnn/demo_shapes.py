"""A small Mask R-CNN over torchvision's pretrained MobileNetV2 learns boxes and masks of shapes.

detector: Mask R-CNN, small
backbone: MobileNetV2 of torchvision
paper:    Mask R-CNN, arXiv 1703.06870; MobileNetV2, arXiv 1801.04381
command:  python -m detrex.data.demo.shapes output/demo/shapes/data --train 1000 --val 100
          detrex train mask_rcnn/demo_shapes.py
hardware: two CPU cores, under 10 minutes
box AP:   not a benchmark; see the README for boxes and masks of these shapes
"""

from detectron2.config import LazyCall as L

from detrex.config import get_config, get_detectron2_config
from detrex.data.demo.photographs import fetch_mobilenet_v2_weights
from detrex.modeling.backbone import TorchvisionBackbone

model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
dataloader = get_config("common/data/shapes.py").dataloader
optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("dino/demo_shapes.py").lr_multiplier
train = get_config("dino/demo_shapes.py").train
_constants = get_config("common/data/constants.py").constants
_WIDTH = 64

model.backbone.bottom_up = L(TorchvisionBackbone)(
    model_name="mobilenet_v2",
    out_features=["res2", "res3", "res4", "res5"],
    weights=L(fetch_mobilenet_v2_weights)(),
    frozen_norm=True,
)
model.pixel_mean = _constants.imagenet_rgb256_mean
model.pixel_std = _constants.imagenet_rgb256_std
model.input_format = "RGB"
model.roi_heads.num_classes = 3

# Shapes have 15 to 45 pixels, an eighth of COCO's objects, and little to tell them apart by.
model.backbone.out_channels = _WIDTH
model.proposal_generator.update(
    batch_size_per_image=64, pre_nms_topk=(300, 300), post_nms_topk=(200, 100)
)
model.proposal_generator.head.in_channels = _WIDTH
model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [96], [192]]
model.roi_heads.batch_size_per_image = 64
model.roi_heads.box_head.input_shape.channels = _WIDTH
model.roi_heads.box_head.fc_dims = [256]
model.roi_heads.box_predictor.input_shape.channels = 256
model.roi_heads.mask_head.input_shape.channels = _WIDTH
model.roi_heads.mask_head.conv_dims = [_WIDTH] * 3

dataloader.train.dataset.names.num_classes = "${model.roi_heads.num_classes}"
dataloader.test.dataset.names.num_classes = "${model.roi_heads.num_classes}"
dataloader.train.mapper.mask_on = True
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4

train.output_dir = "output/demo/mask_rcnn/run"
train.max_iter = 600
train.eval_period = 200
train.clip_grad.params.max_norm = 1.0
