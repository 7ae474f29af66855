"""The contract suite over the backbones: a new one is one line in `ROWS`.

Every backbone is built from a lazy config, so lists and dicts reach it as omegaconf's.
"""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import ViT

from detrex.modeling.backbone import (
    BasicStem,
    ConvNeXt,
    EVA02_ViT,
    EVAViT,
    FocalNet,
    HuggingFaceBackbone,
    InternImage,
    ResNet,
    SimpleFeaturePyramid,
    TimmBackbone,
    TorchvisionBackbone,
    TorchvisionResNet,
    make_stage,
)
from tests.contracts.backbone import LAWS, check_frozen_parts_stay_frozen, check_runs_on_meta
from tests.reference.versions import is_below

WIDE, SQUARE = (64, 96), (64, 64)


def resnet(depth, outs=("res3", "res4", "res5"), freeze_at=2, norm="BN", **stage):
    if depth >= 50:
        stage = {"in_channels": 8, "out_channels": 16, "width_per_group": 4} | stage
    else:
        stage = {"in_channels": 8, "out_channels": 64} | stage
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=8, norm=norm),
        stages=L(make_stage)(depth=depth, norm=norm, **stage),
        out_features=list(outs),
        freeze_at=freeze_at,
    )


def timm(name, indices, freeze_at=2, **kwargs):
    return L(TimmBackbone)(
        model_name=name, out_indices=list(indices), freeze_at=freeze_at, **kwargs
    )


def by_stride(wrapper, name, strides=(8, 16, 32), freeze_at=2, **kwargs):
    return L(wrapper)(model_name=name, out_strides=list(strides), freeze_at=freeze_at, **kwargs)


def vision(name, nodes, freeze_at=2, **kwargs):
    return L(TorchvisionBackbone)(
        model_name=name, return_nodes=nodes, freeze_at=freeze_at, **kwargs
    )


def hugging_face(kind, strides=(8, 16, 32), freeze_at=2, **config):
    return L(HuggingFaceBackbone)(
        model_name=kind, out_strides=list(strides), freeze_at=freeze_at, **config
    )


def pyramid():
    vit = L(ViT)(img_size=64, embed_dim=32, depth=2, num_heads=2, window_size=0, use_rel_pos=True)
    return L(SimpleFeaturePyramid)(
        net=vit, in_feature="last_feat", out_channels=16, scale_factors=[4.0, 2.0, 1.0, 0.5]
    )


def eva_pyramid(net):
    return L(SimpleFeaturePyramid)(
        net=net, in_feature="${.net.out_feature}", out_channels=16, scale_factors=[2.0, 1.0, 0.5]
    )


TINY_VIT = {
    "img_size": 64,
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 2,
    "drop_path_rate": 0.5,
    "window_size": 3,
    "window_block_indexes": [0, 2],
    "residual_block_indexes": [1],
    "use_act_checkpoint": True,
    "out_feature": "last_feat",
}
TINY_SWIN = {"img_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
DEFORM = {"deform_on_per_stage": [False, True, True, True], "deform_modulated": True}
HF_VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
HF_WIDE_VIT = HF_VIT | {"intermediate_size": 24}
HF_STAGES = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}
HF_RESNET = HF_STAGES | {"embedding_size": 8}
HF_SWIN = {"embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
HF_HIERA = {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1, 1]}
MOBILE = {"features.6": "p3", "features.13": "p4", "features.18": "p5"}

ROWS = {
    "resnet18": (resnet(18), WIDE),
    "resnet50_frozen_norm": (resnet(50, ("stem", "res2", "res5"), norm="FrozenBN"), WIDE),
    "resnet50_dc5": (resnet(50, ("res5",), res5_dilation=2), WIDE),
    "resnet50_deformable": (resnet(50, **DEFORM), WIDE),
    "resnext50": (resnet(50, num_groups=4), WIDE),
    "convnext": (
        L(ConvNeXt)(
            depths=[1, 1, 2, 1],
            dims=[8, 16, 24, 32],
            drop_path_rate=0.5,
            out_indices=[2, 1],
            frozen_stages=1,
        ),
        WIDE,
    ),
    "focalnet": (
        L(FocalNet)(
            embed_dim=8, depths=[1, 1, 2, 1], frozen_stages=2, out_features=["res3", "res4", "res5"]
        ),
        WIDE,
    ),
    "focalnet_with_all_options": (
        L(FocalNet)(
            embed_dim=8,
            depths=[1, 1, 2, 1],
            drop_rate=0.1,
            out_indices=[0, 2],
            frozen_stages=0,
            focal_levels=[1, 2, 3, 0],
            focal_windows=[9, 7, 5, 3],
            use_conv_embed=True,
            use_postln=True,
            use_postln_in_modulation=True,
            use_layerscale=True,
            normalize_modulator=True,
            use_checkpoint=True,
        ),
        WIDE,
    ),
    "internimage": (
        L(InternImage)(
            channels=8,
            depths=[1, 1, 2, 1],
            groups=[1, 2, 4, 8],
            layer_scale=1.0,
            with_cp=True,
            out_indices=[2, 1],
            frozen_stages=1,
        ),
        WIDE,
    ),
    "internimage_with_all_norms": (
        L(InternImage)(
            channels=8,
            depths=[1, 1, 2, 1],
            groups=[1, 2, 4, 8],
            norm_layer="BN",
            layer_scale=1.0,
            dw_kernel_size=5,
            level2_post_norm=True,
            level2_post_norm_block_ids=[1],
            res_post_norm=True,
            center_feature_scale=True,
            frozen_stages=2,
        ),
        WIDE,
    ),
    "eva": (L(EVAViT)(**TINY_VIT, beit_like_gamma=True, freeze_patch_embed=True), WIDE),
    "eva_pyramid": (eva_pyramid(L(EVAViT)(**TINY_VIT, use_rel_pos=True, interp_type="beit")), WIDE),
    "eva_02_pyramid": (eva_pyramid(L(EVA02_ViT)(**TINY_VIT)), WIDE),
    "timm_resnet": (timm("test_resnet", (4, 2)), WIDE),
    "timm_efficientnet": (
        timm("test_efficientnet", (2, 3, -1), norm_layer=FrozenBatchNorm2d),
        WIDE,
    ),
    "timm_byobnet": (timm("test_byobnet", (1, 2, 3), freeze_at=1), WIDE),
    "timm_convnext": (timm("test_convnext", (1, 2, 3), drop_path_rate=0.5), WIDE),
    "timm_mambaout_nhwc": (timm("test_mambaout", (0, 3)), WIDE),
    "timm_swin_nhwc": (
        timm("swin_tiny_patch4_window7_224", (3, 1), **TINY_SWIN),
        SQUARE,
    ),
    "timm_vit": (timm("test_vit", (1, 5), img_size=64, drop_path_rate=0.5), SQUARE),
    "timm_hrnet": (timm("hrnet_w18_small", (1, 2)), WIDE),
    "torchvision_resnet18": (vision("resnet18", {"layer2": "res3", "layer4": "res5"}), WIDE),
    "torchvision_mobilenet": (vision("mobilenet_v2", MOBILE, norm_layer="FrozenBN"), WIDE),
    "torchvision_regnet": (vision("regnet_y_400mf", ["trunk_output.block2"]), WIDE),
    "torchvision_swin_nhwc": (vision("swin_t", {"features.1": "p2", "features.3": "p3"}), WIDE),
    "torchvision_resnet_module": (
        L(TorchvisionResNet)(
            name="resnet18", train_backbone=True, return_layers={"layer2": "res3", "layer4": "res5"}
        ),
        WIDE,
    ),
    "simple_feature_pyramid": (pyramid(), SQUARE),
    "timm_resnet_by_stride": (by_stride(TimmBackbone, "test_resnet", (32, 8)), WIDE),
    "timm_vit_by_stride": (by_stride(TimmBackbone, "test_vit", (4, 8, 16, 32)), WIDE),
    "timm_vit_of_patch_14": (
        by_stride(TimmBackbone, "test_vit", patch_size=14, img_size=56, out_channels=16),
        WIDE,
    ),
    "timm_mixer_in_tiles": (by_stride(TimmBackbone, "mixer_s32_224", img_size=64), WIDE),
    "timm_nest_without_stride_32": (by_stride(TimmBackbone, "nest_tiny", img_size=64), WIDE),
    "torchvision_resnet_by_stride": (by_stride(TorchvisionBackbone, "resnet18"), WIDE),
    "torchvision_vit_by_stride": (
        by_stride(TorchvisionBackbone, "vit_b_16", image_size=64),
        WIDE,
    ),
    "hf_resnet_frozen_norm": (hugging_face("resnet", frozen_norm=True, **HF_RESNET), WIDE),
    "hf_swin": (hugging_face("swin", image_size=64, drop_path_rate=0.5, **HF_SWIN), WIDE),
    "hf_convnext": (hugging_face("convnext", (8, 16), in_channels=3, **HF_STAGES), WIDE),
    "hf_hiera_in_tiles": (
        hugging_face("hiera", num_heads=[1, 1, 2, 2], **HF_HIERA),
        WIDE,
    ),
    "hf_dinov2_of_patch_14": (hugging_face("dinov2", **HF_VIT), WIDE),
    "hf_dinov3": (
        hugging_face("dinov3_vit", (4, 8, 16, 32), grad_checkpointing=True, **HF_WIDE_VIT),
        WIDE,
    ),
    "hf_beit": (hugging_face("beit", image_size=64, **HF_WIDE_VIT), WIDE),
    "hf_vit": (hugging_face("vit", image_size=64, **HF_WIDE_VIT), WIDE),
    "hf_vit_by_index": (
        L(HuggingFaceBackbone)(
            model_name="vit", out_indices=[2, 1], freeze_at=1, image_size=64, **HF_WIDE_VIT
        ),
        WIDE,
    ),
    "hf_masked_autoencoder": (hugging_face("vit_mae", image_size=64, **HF_WIDE_VIT), WIDE),
    "hf_clip": (hugging_face("clip_vision_model", image_size=64, **HF_WIDE_VIT), WIDE),
    "hf_segformer": (
        hugging_face("segformer", num_attention_heads=[1, 1, 2, 2], **HF_STAGES),
        WIDE,
    ),
}


@pytest.fixture(scope="module", params=ROWS)
def built(request):
    config, size = ROWS[request.param]
    torch.manual_seed(0)
    return instantiate(config), torch.randn(2, 3, *size)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("check_"))
def test_law(built, law, request):
    backbone, image = built
    if law is check_frozen_parts_stay_frozen and not hasattr(backbone, "frozen_modules"):
        pytest.skip("a pyramid leaves freezing to the network below it")
    is_dinov3 = request.node.callspec.params["built"] == "hf_dinov3"
    if law is check_runs_on_meta and is_dinov3 and is_below("torch", 2, 7):
        pytest.skip("torch 2.6 has no autocast on meta, which DINOv3 of transformers turns off")
    law(backbone, image)
