"""Backbones: images ``(N, 3, H, W)`` to feature maps ``{name: (N, C, H / stride, W / stride)}``.

    timm_backbone/             any network of timm           (imported when first built)
    torchvision_backbone/      any classifier of torchvision, cut at nodes of its graph
    huggingface_backbone/      any network of images of Hugging Face's transformers
    resnet.py                  detectron2's ResNet, with stages by depth (deform_bottleneck.py)
    torchvision_resnet.py      torchvision's ResNet as the DETR family uses it
    convnext.py, focalnet.py, internimage.py    with the names of their weights; staged.py: shared
    eva.py, eva_02.py          likewise; vit_layers.py, utils.py, eva_02_utils.py: shared
    simple_feature_pyramid.py  levels over a plain vision transformer; top_block.py: coarser ones
    roi_stage.py               the last stage as the head of regions; splitting.py: where it begins
    registry.py                wrapped networks for detectron2's YAML configs
    arguments.py               keywords that several of them share, checked

What is done for any network is in folders, of which each knows only those before it:

    features/     the way of an image: its size, the network's maps, the levels
    inspection/   what a network gives and needs, seen by runs on the meta device
    training/     what is frozen, norms, checkpointing, learning rates by layer
    weights/      where weights are, and how they reach a network
    wrapper/      a network of another library as a backbone, of all these
"""

from .convnext import ConvNeXt
from .eva import EVAViT
from .eva_02 import EVA02_ViT
from .focalnet import FocalNet
from .huggingface_backbone import HuggingFaceBackbone
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
    "HuggingFaceBackbone",
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
