"""The names of each public module, frozen: people's configs and programs import them."""

import importlib

import pytest

BACKBONES = """
    BasicBlock BasicStem BottleneckBlock ConvNeXt DeformBottleneckBlock EVA02_ViT EVAViT FocalNet
    HuggingFaceBackbone InternImage ResNet
    ResNetBlockBase SimpleFeaturePyramid TimmBackbone TorchvisionBackbone get_vit_lr_decay_rate
    make_stage
    add_backbone_config register_backbones set_pixel_statistics
"""
LOSSES = """
    CrossEntropyLoss DiceLoss FocalLoss GIoULoss L1Loss cross_entropy dice_loss giou_loss l1_loss
    reduce_loss sigmoid_focal_loss smooth_l1_loss weight_reduce_loss
"""
MODULES = {
    "detrex": "__version__ config data layers modeling utils",
    "detrex.errors": """
        BackboneError CheckpointError ConfigError DataError DetrexError DownloadError
        NonFiniteLossError did_you_mean
    """,
    "detrex.layers": """
        BaseTransformerLayer ConditionalCrossAttention ConditionalSelfAttention ConvNorm ConvNormAct
        DCNv3 DCNv3Function DCNv3_pytorch FFN
        GenerateDNQueries LayerNorm MLP MultiScaleDeformableAttention MultiheadAttention
        PositionEmbeddingLearned PositionEmbeddingSine ShapeSpec TransformerLayerSequence
        apply_box_noise apply_label_noise box_cxcywh_to_xyxy box_iou box_xyxy_to_cxcywh
        dcnv3_core_pytorch generalized_box_iou get_sine_pos_embed masks_to_boxes
        multi_scale_deformable_attn_pytorch
    """,
    "detrex.modeling": LOSSES
    + """
        BaseCriterion BasicBlock BasicStem BottleneckBlock ChannelMapper ConvNeXt FocalNet
        HungarianMatcher ResNet ResNetBlockBase SetCriterion TimmBackbone make_stage
        optimize_for_inference
    """,
    "detrex.modeling.backbone": BACKBONES,
    "detrex.modeling.criterion": "BaseCriterion SetCriterion",
    "detrex.modeling.criterion.criterion": "SetCriterion sigmoid_focal_loss",
    "detrex.modeling.dino": """
        DINO DINOCriterion DINOTransformer DINOTransformerDecoder DINOTransformerEncoder
    """,
    "detrex.modeling.ema": """
        EMAHook EMAState EMAUpdater apply_model_ema apply_model_ema_and_restore get_model_ema_state
        may_build_model_ema may_get_ema_checkpointer
    """,
    "detrex.modeling.losses": LOSSES,
    "detrex.modeling.matcher": """
        CrossEntropyCost FocalLossCost GIoUCost HungarianMatcher L1Cost ModifedMatcher
    """,
    "detrex.modeling.neck": "ChannelMapper",
    "detrex.utils": """
        WandbWriter get_rank get_world_size interpolate inverse_sigmoid
        is_dist_avail_and_initialized
    """,
    "detrex.utils.dist": "setup_for_distributed slurm_init_distributed_mode",
    "detrex.config": "get_config get_detectron2_config load_config swap_backbone try_get_key",
    "detrex.checkpoint.detection_checkpoint": "DetectionCheckpointer",
    "detrex.data": """
        COCOInstanceNewBaselineDatasetMapper COCOPanopticNewBaselineDatasetMapper
        ColorAugSSDTransform DetrDatasetMapper MaskFormerInstanceDatasetMapper
        MaskFormerPanopticDatasetMapper MaskFormerSemanticDatasetMapper datasets
    """,
    "detrex.data.dataset_mappers": """
        COCOInstanceNewBaselineDatasetMapper COCOPanopticNewBaselineDatasetMapper
        MaskFormerInstanceDatasetMapper MaskFormerPanopticDatasetMapper
        MaskFormerSemanticDatasetMapper coco_instance_transform_gen coco_panoptic_transform_gen
        maskformer_semantic_transform_gen
    """,
    "detrex.engine": "Trainer argument_parser do_test do_train launch main",
}

# Modules that hold one concern each and are imported from by path, besides those above.
PATHS = """
    detrex.layers.attention:MultiheadAttention
    detrex.layers.box_ops:box_cxcywh_to_xyxy
    detrex.layers.conv:ConvNormAct
    detrex.layers.dcn_v3:DCNv3
    detrex.layers.dcn_v3:DCNv3Function
    detrex.layers.dcn_v3:DCNv3_pytorch
    detrex.layers.dcn_v3:dcnv3_core_pytorch
    detrex.layers.denoising:GenerateCDNQueries
    detrex.layers.layer_norm:LayerNorm
    detrex.layers.mlp:MLP
    detrex.layers.multi_scale_deform_attn:MultiScaleDeformableAttention
    detrex.layers.multi_scale_deform_attn:MultiScaleDeformableAttnFunction
    detrex.layers.position_embedding:PositionEmbeddingSine
    detrex.layers.shape_spec:ShapeSpec
    detrex.layers.transformer:BaseTransformerLayer
    detrex.modeling.backbone.convnext:ConvNeXt
    detrex.modeling.backbone.focalnet:FocalNet
    detrex.modeling.backbone.eva:EVAViT
    detrex.modeling.backbone.eva:SimpleFeaturePyramid
    detrex.modeling.backbone.eva:get_vit_lr_decay_rate
    detrex.modeling.backbone.eva_02:EVA02_ViT
    detrex.modeling.backbone.eva_02:SimpleFeaturePyramid
    detrex.modeling.backbone.eva_02:get_vit_lr_decay_rate
    detrex.modeling.backbone.eva_02_utils:VisionRotaryEmbeddingFast
    detrex.modeling.backbone.internimage:InternImage
    detrex.modeling.backbone.utils:get_rel_pos
    detrex.modeling.backbone.resnet:ResNet
    detrex.modeling.backbone.huggingface_backbone:HuggingFaceBackbone
    detrex.modeling.backbone.timm_backbone:TimmBackbone
    detrex.modeling.backbone.torchvision_backbone:TorchvisionBackbone
    detrex.modeling.backbone.torchvision_resnet:TorchvisionResNet
    detrex.modeling.criterion.base_criterion:BaseCriterion
    detrex.modeling.losses.cross_entropy_loss:CrossEntropyLoss
    detrex.modeling.losses.dice_loss:DiceLoss
    detrex.modeling.losses.focal_loss:FocalLoss
    detrex.modeling.losses.giou_loss:GIoULoss
    detrex.modeling.losses.smooth_l1_loss:L1Loss
    detrex.modeling.losses.utils:weight_reduce_loss
    detrex.modeling.matcher.match_cost:FocalLossCost
    detrex.modeling.matcher.matcher:HungarianMatcher
    detrex.modeling.matcher.modified_matcher:ModifedMatcher
    detrex.modeling.neck.channel_mapper:ChannelMapper
    detrex.utils.events:WandbWriter
    detrex.utils.misc:inverse_sigmoid
    detrex.config.config:get_config
    detrex.data.detr_dataset_mapper:DetrDatasetMapper
    detrex.data.dataset_mappers.coco_instance_new_baseline_dataset_mapper:build_transform_gen
    detrex.data.dataset_mappers.coco_panoptic_new_baseline_dataset_mapper:build_transform_gen
    detrex.data.dataset_mappers.mask_former_instance_dataset_mapper:build_transform_gen
    detrex.data.dataset_mappers.mask_former_panoptic_dataset_mapper:MaskFormerPanopticDatasetMapper
    detrex.data.dataset_mappers.mask_former_semantic_dataset_mapper:build_transform_gen
    detrex.data.transforms.color_augmentation:ColorAugSSDTransform
"""


@pytest.mark.parametrize("module", MODULES)
def test_module__has_its_names(module):
    """Each name is there, and in a package's ``__all__``, which lists nothing that is not."""
    imported = importlib.import_module(module)
    names = MODULES[module].split()
    assert [name for name in names if not hasattr(imported, name)] == []
    listed = getattr(imported, "__all__", None)
    if listed is not None and hasattr(imported, "__path__"):
        assert set(names) <= set(listed)
        assert len(listed) == len(set(listed))
        assert [name for name in listed if not hasattr(imported, name)] == []


@pytest.mark.parametrize("path", PATHS.split())
def test_path__is_importable(path):
    module, name = path.split(":")
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "name", sorted(set(BACKBONES.split()) & set(MODULES["detrex.modeling"].split()))
)
def test_modeling__offers_the_object_of_its_home(name):
    modeling = importlib.import_module("detrex.modeling")
    backbone = importlib.import_module("detrex.modeling.backbone")
    assert getattr(modeling, name) is getattr(backbone, name)
