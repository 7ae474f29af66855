"""DINO-4scale over any network of timm: an example, here ResNet-152d with frozen batch norm.

detector: DINO, 4 scales
backbone: ResNet-152d of timm; any other by its name
paper:    DINO, arXiv 2203.03605; timm by Ross Wightman
command:  detrex train dino/timm_example.py --num-gpus 8
hardware: 8 GPUs, 2 images on each
box AP:   the original detrex published none; not trained here

The outputs are chosen by stride and named res3, res4 and res5; the neck and the statistics of the
images follow from the network, so any other name of timm may stand here.
"""

from detectron2.config import LazyCall as L

from detrex.modeling.backbone import TimmBackbone

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone = L(TimmBackbone)(
    model_name="resnet152d", out_strides=(8, 16, 32), pretrained=True, frozen_norm=True
)

# The backbone brings its own weights.
train.init_checkpoint = ""
train.output_dir = "./output/dino_timm_example"
