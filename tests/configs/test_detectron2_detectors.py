"""detectron2's detectors over wrapped backbones: each config builds, learns a step, and detects."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from detrex.config import load_config
from detrex.config.config import configs_root
from detrex.engine.overrides import apply_overrides

RCNN = [
    "model.proposal_generator.batch_size_per_image=16",
    "model.proposal_generator.pre_nms_topk=[50,50]",
    "model.proposal_generator.post_nms_topk=[20,10]",
    "model.roi_heads.batch_size_per_image=8",
    "model.roi_heads.mask_head.conv_dims=[32]",
]
BOX_HEAD = [
    "model.roi_heads.box_head.fc_dims=[32]",
    "model.roi_heads.box_predictor.input_shape.channels=32",
]
# What makes each small enough to run here; its structure stays.
SMALL = {
    "mask_rcnn/mask_rcnn_convnext_tiny_fpn_3x.py": [
        *(*RCNN, *BOX_HEAD, "model.backbone.bottom_up.model_name=test_convnext"),
    ],
    "mask_rcnn/demo_shapes.py": [*RCNN, *BOX_HEAD],
    "cascade_rcnn/cascade_rcnn_swin_tiny_fpn_3x.py": [
        *(*RCNN, "+model.backbone.bottom_up.embed_dim=24"),
        *("+model.backbone.bottom_up.depths=[1,1,1,1]",),
        *("+model.backbone.bottom_up.num_heads=[1,2,4,8]",),
    ],
    "retinanet/retinanet_torchvision_r50_fpn_1x.py": [
        "model.backbone.bottom_up.model_name=resnet18",
        "model.backbone.top_block.in_channels=512",
        "model.head.conv_dims=[256]",
    ],
    "fcos/fcos_dla34_fpn_1x.py": [
        "model.backbone.bottom_up.model_name=test_resnet",
        "model.head.conv_dims=[256]",
    ],
    "vitdet/mask_rcnn_vit_base_100ep.py": [
        *(*RCNN, *BOX_HEAD, "model.roi_heads.box_head.conv_dims=[32]"),
        *("model.backbone.net.model_name=test_vit", "model.backbone.square_pad=96"),
    ],
}


def small(name):
    cfg = apply_overrides(load_config(configs_root() / name), [*SMALL[name], "train.device=cpu"])
    network(cfg.model).weights = None
    return cfg


def network(model):
    return model.backbone.net if "net" in model.backbone else model.backbone.bottom_up


def batch(num_classes=3):
    """Two images of unlike sizes with two boxes and their masks each."""
    samples = []
    for height, width in ((64, 83), (71, 59)):
        corners = [[5.0, 7.0, 41.0, 39.0], [20.0, 12.0, 50.0, 60.0]]
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor(corners))
        instances.gt_classes = torch.tensor([0, num_classes - 1])
        instances.gt_masks = PolygonMasks(
            [[np.array([a, b, c, b, c, d, a, d])] for a, b, c, d in corners]
        )
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        samples.append({"image": image, "height": 97, "width": 101, "instances": instances})
    return samples


@pytest.mark.parametrize("name", SMALL)
def test_config__trains_a_step_and_detects(name):
    cfg = small(name)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    with EventStorage(0):
        losses = model.train()(batch())
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert ("loss_mask" in losses) == ("rcnn" in name)
    optimizer.step()
    still = [n for n, p in model.named_parameters() if n in before and torch.equal(p, before[n])]
    # Biases of zero and norms may have no gradient in one step; weights have.
    assert not [n for n in still if n.endswith(".weight") and model.get_parameter(n).ndim > 1]
    with torch.no_grad():
        results = model.eval()(batch())
    assert results[0]["instances"].image_size == (97, 101)


@pytest.mark.parametrize("name", SMALL)
def test_config__images_are_those_of_the_weights(name):
    cfg = load_config(configs_root() / name)
    node = network(cfg.model)
    assert node.weights
    if "Timm" in str(node._target_):
        published = timm.get_pretrained_cfg(node.model_name)
    else:
        published = torchvision.models.get_model_weights(node.model_name).DEFAULT.transforms()
    assert list(cfg.model.pixel_mean) == pytest.approx([255 * value for value in published.mean])
    assert list(cfg.model.pixel_std) == pytest.approx([255 * value for value in published.std])
    orders = {cfg.model.get("input_format", "RGB")}  # FCOS takes images as they come
    for mapper in (cfg.dataloader.train.mapper, cfg.dataloader.test.mapper):
        orders.add(mapper.image_format if "image_format" in mapper else mapper.img_format)
    assert orders == {"RGB"}


@pytest.mark.parametrize("name", SMALL)
def test_config__masks_are_read_where_they_are_learnt(name):
    cfg = load_config(configs_root() / name)
    mapper = cfg.dataloader.train.mapper
    reads = mapper.use_instance_mask if "use_instance_mask" in mapper else mapper.mask_on
    assert reads == (OmegaConf.select(cfg, "model.roi_heads.mask_head") is not None)
