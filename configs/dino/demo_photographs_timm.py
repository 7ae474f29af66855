"""The demo's second act over timm's copy of the network: the same weights give the same features.

paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  python tools/train_net.py --config-file configs/dino/demo_photographs_timm.py
          (after `python demo/run.py --act photographs`, which prepares the data)
hardware: two CPU cores, under 10 minutes
box AP:   not a benchmark; the same act as `demo_photographs.py`
"""

from detectron2.config import LazyCall as L
from detectron2.layers import FrozenBatchNorm2d

from detrex.data.photographs import fetch_mobilenet_v2_weights
from detrex.modeling.backbone import TimmBackbone

from .demo_photographs import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone = L(TimmBackbone)(
    model_name="mobilenetv2_100",
    checkpoint_path=L(fetch_mobilenet_v2_weights)(),
    out_indices=(2, 3, 4),
    norm_layer=FrozenBatchNorm2d,
    freeze_at=2,
)

train.output_dir = "output/demo/photographs_timm/run"
