r"""DINO-4scale with an EVA-02-B of four global blocks at 1024, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: EVA-02-B, 4 global blocks, images of 1024
paper:    DINO, arXiv 2203.03605; EVA-02, arXiv 2303.11331; ViTDet, arXiv 2203.16527
command:  detrex train dino/dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=eva02_B_pt_in21k_p14to16.pt
          with the file from the release page of baaivision/EVA
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from functools import partial

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from detrex.config import get_config
from detrex.modeling.backbone import get_vit_lr_decay_rate

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, train  # noqa: F401
from .models.dino_eva_02_vitdet_b import model

# Large-scale jitter (arXiv 2012.07177) within a square of the network's size.
_SIZE = "${model.backbone.net.img_size}"
dataloader.train.mapper.augmentation = [
    L(T.RandomFlip)(),
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=_SIZE, target_width=_SIZE),
    L(T.FixedSizeCrop)(crop_size=[_SIZE, _SIZE], pad=False),
]
dataloader.train.mapper.augmentation_with_crop = None
dataloader.test.mapper.augmentation = [
    L(T.ResizeShortestEdge)(short_edge_length=_SIZE, max_size=_SIZE)
]

optimizer = get_config("common/optim.py").AdamW
optimizer.lr = 1e-4
optimizer.betas = (0.9, 0.999)
optimizer.weight_decay = 1e-4
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=12)
optimizer.params.overrides = {"pos_embed": {"weight_decay": 0.0}}
optimizer.params.weight_decay_norm = None

model.device = "${train.device}"
train.init_checkpoint = "eva02_B_pt_in21k_p14to16.pt"
train.output_dir = "./output/dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep"
