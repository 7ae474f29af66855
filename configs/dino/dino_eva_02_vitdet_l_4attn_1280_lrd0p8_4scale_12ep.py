r"""DINO-4scale with an EVA-02-L of four global blocks at 1280, 12 epochs of COCO.

detector: DINO, 4 scales
backbone: EVA-02-L, 4 global blocks, images of 1280
paper:    DINO, arXiv 2203.03605; EVA-02, arXiv 2303.11331; ViTDet, arXiv 2203.16527
command:  detrex train dino/dino_eva_02_vitdet_l_4attn_1280_lrd0p8_4scale_12ep.py \
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

model.backbone.net.img_size = 1280

train.output_dir = "./output/dino_eva_02_vitdet_l_4attn_1280_lrd0p8_4scale_12ep"
