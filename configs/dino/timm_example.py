"""DINO-4scale over any network of timm: an example, here ResNet-152d with frozen batch norm.

paper:    DINO, arXiv 2203.03605; timm by Ross Wightman
command:  python tools/train_net.py --config-file configs/dino/timm_example.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   the original detrex published none; not trained here

Of a ResNet of timm, the outputs 0 to 4 have strides 2, 4, 8, 16 and 32; DINO takes the last three.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec

from detrex.modeling.backbone import TimmBackbone

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone = L(TimmBackbone)(
    model_name="resnet152d",
    features_only=True,
    pretrained=True,
    in_channels=3,
    out_indices=(2, 3, 4),
    norm_layer=FrozenBatchNorm2d,
)
model.neck.input_shapes = {
    "p2": ShapeSpec(channels=512),
    "p3": ShapeSpec(channels=1024),
    "p4": ShapeSpec(channels=2048),
}
model.neck.in_features = ["p2", "p3", "p4"]

# The backbone brings its own weights.
train.init_checkpoint = ""
train.output_dir = "./output/dino_timm_example"
