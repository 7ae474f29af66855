"""Backbones: images ``(N, 3, H, W)`` to maps ``{name: (N, C, H / stride, W / stride)}``.

    resnet.py                detectron2's ResNet, with stages by depth (deform_block.py: a block)
    convnext.py              ConvNeXt, and
    focalnet.py              FocalNet with the names of their official weights (staged.py: shared)
    timm_backbone.py         any network of timm          (imported when first built)
    torchvision_backbone.py  any classifier of torchvision, tapped at named nodes of its graph
    torchvision_resnet.py    torchvision's ResNet as the DETR family uses it
    internimage.py           InternImage, and
    eva.py, eva_02.py        EVA and EVA-02, likewise (vit_layers.py: shared)
    simple_feature_pyramid.py  a feature pyramid over a plain vision transformer
    roi_stage.py             the last stage of any of them for regions (splitting.py finds where)

They share features.py (the table of what a network offers), probing.py (a look at a network without
running it on data), frozen_norm.py, freezing.py and building.py (messages for misspelt keywords).
"""

from .convnext import ConvNeXt
from .eva import EVAViT
from .eva_02 import EVA02_ViT
from .focalnet import FocalNet
from .internimage import InternImage
from .registry import add_backbone_config, register_backbones, set_pixel_statistics
from .resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    ResNetBlockBase,
    make_stage,
)
from .roi_stage import RoiStage
from .simple_feature_pyramid import SimpleFeaturePyramid, get_vit_lr_decay_rate
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .torchvision_resnet import TorchvisionResNet

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "ConvNeXt",
    "DeformBottleneckBlock",
    "EVA02_ViT",
    "EVAViT",
    "FocalNet",
    "InternImage",
    "ResNet",
    "ResNetBlockBase",
    "RoiStage",
    "SimpleFeaturePyramid",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionResNet",
    "add_backbone_config",
    "get_vit_lr_decay_rate",
    "make_stage",
    "register_backbones",
    "set_pixel_statistics",
]
