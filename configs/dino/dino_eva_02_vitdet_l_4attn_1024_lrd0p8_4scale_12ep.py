r"""DINO-4scale with an EVA-02-L of four global blocks at 1024, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: EVA-02-L, 4 global blocks, images of 1024
paper:    DINO, arXiv 2203.03605; EVA-02, arXiv 2303.11331; ViTDet, arXiv 2203.16527
command:  detrex train dino/dino_eva_02_vitdet_l_4attn_1024_lrd0p8_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=eva02_L_pt_m38m_p14to16.pt
          with the file from the release page of baaivision/EVA
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from functools import partial

from detrex.modeling.backbone import get_vit_lr_decay_rate

from .dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep import (  # noqa: F401
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.net.embed_dim = 1024
model.backbone.net.depth = 24
model.backbone.net.num_heads = 16
model.backbone.net.drop_path_rate = 0.4
model.backbone.net.window_block_indexes = [index for index in range(24) if index % 6 != 5]

optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, lr_decay_rate=0.8, num_layers=24)

train.init_checkpoint = "eva02_L_pt_m38m_p14to16.pt"
train.output_dir = "./output/dino_eva_02_vitdet_l_4attn_1024_lrd0p8_4scale_12ep"
