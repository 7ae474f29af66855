"""Small detectors of several kinds over backbones of all sources, to be saved and loaded again."""

import torch
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf

from detrex.config import get_config, swap_backbone
from detrex.config.building import build_part
from detrex.inference import Detector
from detrex.inference.portable import evaluation_augmentation, image_format
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from tests.reference.tiny_detectors import tiny_detector

CLASSES = ("circle", "square | round", "<triangle>")


def _dino(backbone) -> DictConfig:
    cfg = get_config("dino/demo_shapes.py")
    cfg.model.embed_dim, cfg.model.position_embedding.num_pos_feats = 32, 16
    cfg.model.num_queries = cfg.model.select_box_nums_for_evaluation = 20
    for part in (cfg.model.transformer.encoder, cfg.model.transformer.decoder):
        part.num_layers, part.feedforward_dim = 1, 32
    if backbone is not None:
        cfg.model.pixel_mean = cfg.model.pixel_std = "auto"
        cfg.model = swap_backbone(cfg.model, backbone)
    return cfg


def _of_detectron2(name, backbone) -> DictConfig:
    cfg = get_config("mask_rcnn/demo_shapes.py")
    cfg.model = tiny_detector(name)
    if backbone is not None:
        cfg.model = swap_backbone(cfg.model, backbone)
    return cfg


def _timm(name="test_resnet", **keywords):
    return L(TimmBackbone)(model_name=name, weights=None, **keywords)


def _torchvision(name="shufflenet_v2_x0_5", **keywords):
    return L(TorchvisionBackbone)(model_name=name, weights=None, **keywords)


CONFIGS = {
    "dino_resnet": lambda: _dino(None),
    "dino_timm": lambda: _dino(_timm("test_vit")),
    "dino_torchvision": lambda: _dino(_torchvision()),
    "mask_rcnn_resnet": lambda: _of_detectron2("mask_rcnn_fpn", None),
    "mask_rcnn_timm": lambda: _of_detectron2("mask_rcnn_fpn", _timm(frozen_norm=True)),
    "retinanet_torchvision": lambda: _of_detectron2("retinanet", _torchvision()),
    "fcos_timm": lambda: _of_detectron2("fcos", _timm("test_convnext")),
    "fcos_resnet": lambda: _of_detectron2("fcos", None),
}


def shared_config(name: str) -> DictConfig:
    """A whole config whose pictures stay small, with places of a machine in it."""
    cfg = CONFIGS[name]()
    cfg.train.output_dir, cfg.train.device = "/machine/secret/run", "cpu"
    cfg.train.init_checkpoint = "/machine/secret/start.pth"
    cfg.dataloader.folder = "/machine/secret/data"
    resize = L(T.ResizeShortestEdge)(short_edge_length=72, max_size=120)
    cfg.dataloader.test.mapper = OmegaConf.create(cfg.dataloader.test.mapper)
    cfg.dataloader.test.mapper.update({_augmentations(cfg): [resize]})
    return cfg


def _augmentations(cfg: DictConfig) -> str:
    return "augmentation" if "augmentation" in cfg.dataloader.test.mapper else "augmentations"


def shared_detector(name: str, dtype: torch.dtype = torch.float32, **keywords) -> Detector:
    """A detector with weights that are nobody's initial ones."""
    cfg = shared_config(name)
    torch.manual_seed(7)
    model = build_part(cfg.model, "model").eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and "running_var" not in key:
                value.add_(torch.randn_like(value), alpha=0.02)
            elif "num_batches_tracked" in key:
                value.fill_(123)
    model.to(dtype)
    options = {"class_names": CLASSES, "threshold": 0.0, "origin": "", **keywords}
    return Detector(
        model,
        cfg,
        input_format=image_format(cfg),
        augmentation=evaluation_augmentation(cfg),
        **options,
    )
