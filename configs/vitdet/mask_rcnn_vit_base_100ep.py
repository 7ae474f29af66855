r"""Mask R-CNN over a plain vision transformer (ViTDet): timm's ViT-B, 100 epochs of COCO.

Any vision transformer of timm with patches of 16 pixels may stand here, by the map of its last
block; one with others, such as DINOv2, by out_features=["res4"] and in_feature="res4", for which
the map is resampled. Unlike in the paper all blocks attend to the whole image, and positions are
absolute, as the network has them.

detector: Mask R-CNN
backbone: ViT-B of timm, as ViTDet
paper:    ViTDet, arXiv 2203.16527; MAE, arXiv 2111.06377
command:  detrex train vitdet/mask_rcnn_vit_base_100ep.py \
              --num-gpus 8 --num-machines 8
hardware: 64 GPUs, 1 image on each
box AP:   not trained here
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from detrex.config import get_config, get_detectron2_config
from detrex.modeling.backbone import TimmBackbone

model = get_detectron2_config("common/models/mask_rcnn_vitdet.py").model
dataloader = get_config("common/data/coco.py").dataloader
optimizer = get_config("common/optim.py").AdamWLayerDecay
train = get_config("common/train.py").train

model.backbone.net = L(TimmBackbone)(
    model_name="vit_base_patch16_224.mae",
    out_indices=[-1],
    weights=True,
    drop_path_rate=0.1,
    grad_checkpointing=True,
)
model.backbone.in_feature = "p-1"

# Large-scale jitter.
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=1024, target_width=1024),
    L(T.FixedSizeCrop)(crop_size=(1024, 1024), pad=False),
]
dataloader.train.mapper.recompute_boxes = True
dataloader.train.mapper.image_format = "${model.input_format}"
dataloader.train.total_batch_size = 64
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=1024)
]
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.params.decay_rate = 0.7

train.max_iter = 184375
train.amp.enabled = True
train.output_dir = "./output/mask_rcnn_vit_base_100ep"

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[163889, 177546, 184375]
    ),
    warmup_length=250 / 184375,
    warmup_factor=0.001,
)
