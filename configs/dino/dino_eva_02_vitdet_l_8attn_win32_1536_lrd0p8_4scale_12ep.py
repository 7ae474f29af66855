r"""DINO-4scale with an EVA-02-L of eight global blocks at 1536, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: EVA-02-L, 8 global blocks, images of 1536
paper:    DINO, arXiv 2203.03605; EVA-02, arXiv 2303.11331; ViTDet, arXiv 2203.16527
command:  detrex train dino/dino_eva_02_vitdet_l_8attn_win32_1536_lrd0p8_4scale_12ep.py \
              --num-gpus 8 train.init_checkpoint=eva02_L_pt_m38m_p14to16.pt
          with the file from the release page of baaivision/EVA
hardware: 8 GPUs, 2 images on each
box AP:   not trained here
"""

from .dino_eva_02_vitdet_l_4attn_1024_lrd0p8_4scale_12ep import (  # noqa: F401
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.net.img_size = 1536
model.backbone.net.window_size = 32
model.backbone.net.window_block_indexes = [index for index in range(24) if index % 3 != 2]

train.output_dir = "./output/dino_eva_02_vitdet_l_8attn_win32_1536_lrd0p8_4scale_12ep"
