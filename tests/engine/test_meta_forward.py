"""Each kind of detector run without data, and the mistakes that this shows."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config import get_detectron2_config
from detrex.config.building import build_on_meta
from detrex.engine.dry_run import dry_run
from detrex.engine.meta_forward import padded_size, run_backbone, run_on_meta
from detrex.errors import ConfigError

KINDS = ["mask_rcnn_fpn", "cascade_rcnn", "keypoint_rcnn_fpn", "panoptic_fpn", "mask_rcnn_c4"]
KINDS += ["retinanet", "fcos"]


def zoo(name):
    return get_detectron2_config(f"common/models/{name}.py").model


def small_vitdet():
    model = zoo("mask_rcnn_vitdet")
    model.backbone.square_pad = model.backbone.net.img_size = 64
    model.backbone.net.update(embed_dim=32, depth=2, num_heads=2, window_block_indexes=[0])
    return model


def attempt(failures):
    def action(what, act):
        try:
            return act()
        except Exception as error:
            failures.append(f"{what}: {error}")

    return action


@pytest.mark.parametrize("name", [*KINDS, "mask_rcnn_vitdet"])
def test_run_on_meta__every_parameter_of_each_kind_is_reached(name):
    model = small_vitdet() if name == "mask_rcnn_vitdet" else zoo(name)
    detector = build_on_meta(model).train()
    failures, reached = [], set()
    for path, part in detector.named_modules():
        if list(part.parameters(recurse=False)):
            part.register_forward_hook(lambda *_, path=path: reached.add(path))
    size = (64, 64) if name == "mask_rcnn_vitdet" else (97, 131)
    seen = run_on_meta(detector, size, attempt(failures))
    assert failures == []
    assert "losses" in seen.notes[0]
    missed = {
        path
        for path, part in detector.named_modules()
        if list(part.parameters(recurse=False)) and path not in reached
    }
    # The bias of detectron2's attention stands beside its layers; scales of FCOS are bare numbers.
    assert {path for path in missed if not path.endswith((".attn", "net", ".scales"))} == set()


@pytest.mark.parametrize(
    ("name", "key", "value", "sentence"),
    [
        ("mask_rcnn_fpn", "roi_heads.mask_head.input_shape.channels", 99, "model.roi_heads: "),
        ("mask_rcnn_fpn", "roi_heads.box_in_features", ["p2", "p3"], "scales of its pooler are ["),
        (
            "mask_rcnn_fpn",
            "roi_heads.box_pooler.scales",
            [1 / 8, 1 / 16, 1 / 32, 1 / 64],
            "1 / str",
        ),
        ("mask_rcnn_fpn", "proposal_generator.in_features", ["p2", "p9"], "'p9', which the backb"),
        ("mask_rcnn_fpn", "proposal_generator.head.num_anchors", 5, "predicts 5 numbers a cell"),
        (
            "mask_rcnn_c4",
            "proposal_generator.anchor_generator.strides",
            [8],
            r"anchors are [8] pixels apart and the strides of its maps are [16]",
        ),
        ("mask_rcnn_c4", "roi_heads.res5.in_channels", 512, "model.roi_heads: "),
        ("mask_rcnn_c4", "roi_heads.positive_fraction", None, "model.roi_heads: "),
        ("panoptic_fpn", "backbone.out_channels", 64, "model.proposal_generator: "),
        (
            "keypoint_rcnn_fpn",
            "roi_heads.keypoint_in_features",
            ["p1"],
            "model.roi_heads: in_featu",
        ),
        ("retinanet", "head.num_anchors", 3, "model.head: its head predicts 12 numbers a cell and"),
        ("retinanet", "head.num_classes", 7, "its anchors need 720"),
        ("retinanet", "head_in_features", ["p3", "p4"], "model.head: "),
        ("fcos", "head_in_features", ["p3", "p4", "p5", "p6", "q7"], "'q7'"),
        ("fcos", "head_in_features", ["p3", "p4"], "2 maps, and the head is built for 5: give"),
        ("retinanet", "backbone.top_block.in_channels", 512, "build it with in_channels=2048."),
        ("mask_rcnn_fpn", "backbone.in_features", ["res2", "res3"], "set top_block.in_feature to "),
        ("mask_rcnn_fpn", "backbone.in_features", ["res4", "res3"], "model.backbone: FPN takes m"),
    ],
)
def test_dry_run__mistake_of_each_kind(name, key, value, sentence):
    model = zoo(name)
    node = OmegaConf.select(model, key.rpartition(".")[0]) if "." in key else model
    if isinstance(node, DictConfig):
        node[key.rpartition(".")[2]] = value
    else:
        setattr(node, key.rpartition(".")[2], value)
    findings = dry_run(model, (64, 96)).findings
    assert any(sentence in finding for finding in findings), findings


def test_dry_run__anchors_beyond_the_last_map_do_no_harm():
    model = zoo("mask_rcnn_fpn")
    model.proposal_generator.in_features = ["p2", "p3", "p4"]
    assert dry_run(model, (64, 96)).findings == []


@pytest.mark.parametrize("size", [(97, 131), (64, 96)])
def test_run_backbone__shapes_are_those_of_a_real_run(size):
    model = zoo("retinanet")
    maps = run_backbone(build_on_meta(model.backbone), torch.empty(3, *size, device="meta"))
    real = instantiate(model.backbone)
    images = ImageList.from_tensors([torch.rand(3, *size)], real.size_divisibility)
    with torch.no_grad():
        expected = {name: map_.shape for name, map_ in real(images.tensor).items()}
    assert {name: map_.shape for name, map_ in maps.items()} == expected


class _Untrue(nn.Module):
    """A backbone that publishes other shapes than it gives."""

    def __init__(self, channels=3, stride=1):
        super().__init__()
        self.shape = {"a": ShapeSpec(channels=channels, stride=stride)}

    def output_shape(self):
        return self.shape

    def forward(self, x):
        return {"a": x[:, :, ::2, ::2]}


@pytest.mark.parametrize("said", [{"channels": 5, "stride": 2}, {"channels": 3, "stride": 4}])
def test_run_backbone__untrue_shapes(said):
    image = torch.empty(3, 32, 48, device="meta")
    run_backbone(_Untrue(channels=3, stride=2), image)
    with pytest.raises(ConfigError, match=r"but gives 3 channels and 16 x 24 cells"):
        run_backbone(_Untrue(**said), image)


def test_padded_size__square_that_is_too_small():
    backbone = nn.Identity()
    backbone.padding_constraints = {"square_size": 64, "size_divisibility": 16}
    assert padded_size(backbone, (48, 64)) == (64, 64)
    with pytest.raises(ConfigError, match=r"64 x 64 .square_pad., and those of training have up"):
        padded_size(backbone, (48, 65))


def test_run_on_meta__other_kinds():
    detector = nn.Module()
    detector.backbone = _Untrue(channels=3, stride=2)
    seen = run_on_meta(detector, (32, 48), attempt(failures := []))
    assert not failures
    assert seen.notes == [
        "the backbone alone was run: what a Module does with its maps is not known here"
    ]
    assert run_on_meta(nn.Module(), (32, 48), attempt(failures)).notes[0].startswith("nothing was")


def test_run_on_meta__head_of_segments_is_not_run_as_one_of_pixels():
    detector = nn.Module()
    detector.backbone = _Untrue(channels=3, stride=2)
    detector.sem_seg_head = nn.Module()  # MaskFormer's has these two names as well
    detector.sem_seg_head.in_features = ["res7"]
    detector.sem_seg_head.layers = lambda features, mask: None
    assert "the backbone alone" in run_on_meta(detector, (32, 48), attempt(failures := [])).notes[0]
    assert not failures
