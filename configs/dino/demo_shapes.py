"""The demo's first act: a small DINO over a narrow ResNet learns coloured shapes from scratch.

detector: DINO, small
backbone: ResNet of basic blocks, narrow
paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  python demo/run.py --act shapes
hardware: two CPU cores, under 4 minutes
box AP:   not a benchmark; see the README for what this act reaches
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from detrex.config import get_config
from detrex.modeling.backbone import BasicBlock, BasicStem, ResNet

from .models.dino_r50 import model

train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").AdamW
dataloader = get_config("common/data/shapes.py").dataloader


def _stage(in_channels, out_channels, first_stride):
    return L(ResNet.make_stage)(
        block_class=BasicBlock,
        num_blocks=2,
        in_channels=in_channels,
        out_channels=out_channels,
        stride_per_block=[first_stride, 1],
        norm="BN",
    )


# Strides 4, 8 and 16; the two finer maps of three go on.
model.backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=32, norm="BN"),
    stages=[_stage(32, 32, 1), _stage(32, 64, 2), _stage(64, 128, 2)],
    out_features=["res3", "res4"],
)
model.neck.input_shapes = {"res3": ShapeSpec(channels=64), "res4": ShapeSpec(channels=128)}
model.neck.in_features = ["res3", "res4"]
model.neck.num_outs = 2
model.embed_dim = 128
model.position_embedding.num_pos_feats = 64
for _part in (model.transformer.encoder, model.transformer.decoder):
    _part.num_layers = 2
    _part.feedforward_dim = 256
model.num_queries = 50
model.num_classes = 3
model.select_box_nums_for_evaluation = 50
model.dn_number = 40
model.device = "${train.device}"

for _part in ("train", "test"):
    dataloader[_part].dataset.names.num_classes = "${model.num_classes}"
dataloader.evaluator.output_dir = "${train.output_dir}"

optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4

train.output_dir = "output/demo/shapes/run"
train.max_iter = 1000
train.eval_period = 200
train.log_period = 20
train.checkpointer.period = 10000
train.clip_grad.enabled = True
train.clip_grad.params.max_norm = 0.1

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01),
    warmup_length=0.06,
    warmup_factor=0.01,
)
