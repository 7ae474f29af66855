"""The demo's first act: a small DINO over a narrow ResNet learns coloured shapes from scratch.

paper:    DINO: DETR with Improved DeNoising Anchor Boxes, arXiv 2203.03605
command:  python demo/run.py --act shapes
hardware: two CPU cores, under 4 minutes
box AP:   not a benchmark; see the README for what this act reaches
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from detrex.config import get_config
from detrex.data import DetrDatasetMapper
from detrex.data.datasets import register_coco_json
from detrex.data.loader import build_train_loader
from detrex.modeling.backbone import BasicBlock, BasicStem, ResNet

from .models.dino_r50 import model

train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").AdamW


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


def _dataset(name, filter_empty):
    return L(get_detection_dataset_dicts)(
        names=L(register_coco_json)(
            name=f"demo_shapes_{name}",
            json_file=f"${{dataloader.folder}}/{name}/annotations.json",
            image_root=f"${{dataloader.folder}}/{name}/images",
            num_classes="${model.num_classes}",
        ),
        filter_empty=filter_empty,
    )


def _mapper(is_train, augmentation):
    return L(DetrDatasetMapper)(
        augmentation=augmentation,
        augmentation_with_crop=None,
        is_train=is_train,
        mask_on=False,
        img_format="RGB",
    )


dataloader = dict(
    # Where demo/run.py writes the shapes.
    folder="output/demo/shapes/data",
    on_bad_image="error",
    train=L(build_train_loader)(
        dataset=_dataset("train", filter_empty=True),
        mapper=_mapper(True, [L(T.RandomFlip)()]),
        total_batch_size=8,
        num_workers=0,
    ),
    test=L(build_detection_test_loader)(
        dataset=_dataset("val", filter_empty=False),
        mapper=_mapper(False, []),
        num_workers=0,
    ),
    evaluator=L(COCOEvaluator)(
        dataset_name="${..test.dataset.names}",
        output_dir="${train.output_dir}",
        use_fast_impl=False,
    ),
)

optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4

train.output_dir = "output/demo/shapes/run"
train.max_iter = 800
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
