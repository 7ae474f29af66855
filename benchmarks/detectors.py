"""Detectors at random weights, batches for them, and a training step."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from detrex.checkpoint.matching.key_conversion import torchvision_to_detectron2
from detrex.config import get_config, get_detectron2_config
from detrex.modeling.backbone import TimmBackbone

Size = tuple[int, int]
LEVELS = ["res2", "res3", "res4", "res5"]


def dino(config: str = "dino/models/dino_r50.py") -> nn.Module:
    """Build DINO-R50, or the model of another config, with the same random weights each time."""
    torch.manual_seed(0)
    return instantiate(get_config(config).model)


def mask_rcnn(*, ours: bool = False) -> nn.Module:
    """Build detectron2's Mask R-CNN with an FPN over a ResNet-50.

    Args:
        ours: whether the ResNet is one of this package, or detectron2's own, with the same weights
            either way: what random heads find decides how much there is to do.
    """
    torch.manual_seed(0)
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up.stages.stride_in_1x1 = False
    theirs = instantiate(model)
    model.backbone.bottom_up = L(TimmBackbone)(
        model_name="resnet50", out_features=LEVELS, frozen_norm=True
    )
    detector = instantiate(model)
    if ours:
        detector.load_state_dict(theirs.state_dict(), strict=False)  # all but the ResNet
        return detector
    found = {
        torchvision_to_detectron2(name.replace("timm_model.", "")): value
        for name, value in detector.backbone.bottom_up.state_dict().items()
    }
    theirs.backbone.bottom_up.load_state_dict(found, strict=False)  # but counts of batches
    return theirs


def batch(size: Size, pictures: int = 1, objects: int = 8) -> list[dict[str, Any]]:
    """Make samples as a mapper gives them.

    Args:
        size: height and width in pixels.
        pictures: how many.
        objects: in each; boxes of at least 16 pixels a side, each with a full mask.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = size
    limits = torch.tensor([width - 16, height - 16, width, height])
    samples = []
    for _ in range(pictures):
        image = torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8)
        corners = torch.rand(objects, 4, generator=generator) * limits
        corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 16)
        truth = Instances(size, gt_boxes=Boxes(corners))
        truth.gt_classes = torch.randint(0, 80, (objects,), generator=generator)
        truth.gt_masks = BitMasks(torch.ones(objects, height, width, dtype=torch.bool))
        samples.append({"image": image, "height": height, "width": width, "instances": truth})
    return samples


def training_step(model: nn.Module, samples: list[dict[str, Any]]) -> Callable[[], None]:
    """Give a step: the losses, their gradients, and AdamW, fused as runs have it."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-7, fused=True)  # the losses stay finite

    def step() -> None:
        optimizer.zero_grad()
        with EventStorage():
            losses = model(samples)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def evaluation(model: nn.Module, samples: list[dict[str, Any]]) -> Callable[[], Any]:
    """Give an inference of a batch, without gradients."""
    model.eval()

    def infer() -> Any:
        with torch.no_grad():
            return model(samples)

    return infer
