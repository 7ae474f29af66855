"""The demo's second act: a small DINO over torchvision's MobileNetV2 finds trees from the air.

Training images are as large as those of validation, since a DETR predicts boxes relative to the
image; and there are many more queries than trees, or most of the trees of a dense tile would be
matched with a query far away.

detector: DINO, small
backbone: MobileNetV2 of torchvision
paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  python demo/run.py --act photographs
hardware: two CPU cores, under 10 minutes
box AP:   not a benchmark; see the README for what this act reaches
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec

from detrex.config.optim import backbone_lr_factor
from detrex.data.demo.photographs import fetch_mobilenet_v2_weights
from detrex.data.transforms import RandomRotate90
from detrex.modeling.backbone import TorchvisionBackbone

from .demo_shapes import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

# Named as timm numbers the same features, so that either backbone can stand here.
model.backbone = L(TorchvisionBackbone)(
    model_name="mobilenet_v2",
    weights=L(fetch_mobilenet_v2_weights)(),
    return_nodes={"features.6": "res3", "features.13": "res4", "features.17": "res5"},
    norm_layer=FrozenBatchNorm2d,
    freeze_at=2,
)
model.neck.input_shapes = {
    "res3": ShapeSpec(channels=32),
    "res4": ShapeSpec(channels=96),
    "res5": ShapeSpec(channels=320),
}
model.neck.in_features = ["res3", "res4", "res5"]
model.neck.num_outs = 3
for _part in (model.transformer.encoder, model.transformer.decoder):
    _part.num_heads = 4
    _part.feedforward_dim = 512
model.transformer.decoder.num_layers = 3
model.num_classes = 1
model.num_queries = 300
model.select_box_nums_for_evaluation = 300
model.dn_number = 100

dataloader.folder = "output/demo/photographs/data"
dataloader.train.dataset.names.name = "demo_photographs_train"
dataloader.test.dataset.names.name = "demo_photographs_val"
dataloader.train.total_batch_size = 2
dataloader.train.mapper.augmentation = [
    L(T.RandomFlip)(),
    L(RandomRotate90)(),
    L(T.ResizeScale)(min_scale=0.8, max_scale=1.25, target_height=400, target_width=400),
    L(T.FixedSizeCrop)(crop_size=(400, 400)),
    L(T.RandomBrightness)(intensity_min=0.7, intensity_max=1.3),
    L(T.RandomContrast)(intensity_min=0.7, intensity_max=1.3),
    L(T.RandomSaturation)(intensity_min=0.6, intensity_max=1.4),
]
dataloader.train.mapper.min_visible = 0.3

optimizer.lr = 6e-4
optimizer.weight_decay = 1e-4
optimizer.params.lr_factor_func = backbone_lr_factor

train.output_dir = "output/demo/photographs/run"
train.max_iter = 600
train.eval_period = 150
train.model_ema.enabled = True
train.model_ema.decay = 0.99
