"""detectron2's own detectors, narrow enough that a test may train them in a second."""

from pathlib import Path
from typing import Any

import detectron2
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from omegaconf import DictConfig, ListConfig

from detrex.config import load_config

CONFIGS = Path(detectron2.__file__).parent / "model_zoo" / "configs" / "common" / "models"
WIDTH = 64
NUM_CLASSES, NUM_KEYPOINTS, NUM_STUFF = 3, 6, 2

DETECTORS = (
    *("mask_rcnn_fpn", "cascade_rcnn", "keypoint_rcnn_fpn", "panoptic_fpn", "fcos", "retinanet"),
    *("mask_rcnn_c4", "mask_rcnn_vitdet"),
)


def tiny_detector(name: str) -> DictConfig:
    """The model of one of `DETECTORS` for the shapes, with layers of `WIDTH` channels."""
    model = load_config(CONFIGS / f"{name}.py").model
    _narrow(model)
    if name == "mask_rcnn_vitdet":
        size = {"img_size": 96, "depth": 2, "num_heads": 2, "window_size": 2}
        model.backbone.net.update(**size, window_block_indexes=[0])
        model.backbone.square_pad = 96
    else:
        network = model.backbone.get("bottom_up", model.backbone)
        network.stem.update(out_channels=8, norm="BN")
        network.stages = [_stage(8, 8, 1), _stage(8, 16, 2), _stage(16, WIDTH, 2)]
    if name == "mask_rcnn_c4":
        model.roi_heads.res5 = _stage(WIDTH, 2 * WIDTH, 2)
    elif name != "mask_rcnn_vitdet":
        network.stages.append(_stage(WIDTH, 2 * WIDTH, 2))
    if name == "retinanet":
        model.backbone.top_block.in_channels = 2 * WIDTH
    if "proposal_generator" in model:
        model.proposal_generator.update(
            batch_size_per_image=16, pre_nms_topk=(50, 50), post_nms_topk=(20, 10)
        )
        model.roi_heads.batch_size_per_image = 8
        model.roi_heads.num_classes = NUM_CLASSES
    else:
        model.update(num_classes=NUM_CLASSES, test_score_thresh=0.0)
    if "keypoint" in name:
        model.roi_heads.keypoint_head.num_keypoints = NUM_KEYPOINTS
    if "panoptic" in name:
        model.sem_seg_head.num_classes = NUM_STUFF
    return model


def _stage(in_channels: int, out_channels: int, stride: int) -> DictConfig:
    return L(ResNet.make_stage)(
        block_class=BasicBlock,
        num_blocks=1,
        stride_per_block=[stride],
        in_channels=in_channels,
        out_channels=out_channels,
        norm="BN",
    )


def _narrow(node: Any) -> None:
    """Set the widths of feature maps and hidden layers to `WIDTH`, in place."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        value = node[key]
        if isinstance(value, DictConfig | ListConfig):
            if key not in ("sizes", "pixel_mean", "pixel_std"):
                _narrow(value)
        elif key == "test_score_thresh":  # what scores little is kept, for weights are random
            node[key] = 0.0
        elif isinstance(value, int) and value >= 128 and "per_image" not in str(key):
            node[key] = WIDTH
