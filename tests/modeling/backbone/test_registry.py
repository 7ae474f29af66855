"""YAML configs build what the wrappers build, and detectron2's DefaultTrainer trains with it."""

import json
import logging
import sys
from pathlib import Path

import detectron2
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone, build_model

from detrex.data.demo.shapes import write_shapes_dataset
from detrex.errors import ConfigError
from detrex.modeling.backbone import (
    HuggingFaceBackbone,
    TimmBackbone,
    TorchvisionBackbone,
    add_backbone_config,
    register_backbones,
    registry,
    set_pixel_statistics,
)
from tests.reference.clean_logging import restored_loggers
from tests.reference.tiny_transformers import RESNET, SWIN, built_by_transformers

YAML = Path(detectron2.__file__).parent / "model_zoo/configs"
NAMES = [
    f"build_{retinanet}{library}_{fpn}backbone"
    for library in ("timm", "torchvision", "huggingface")
    for retinanet, fpn in (("", ""), ("", "fpn_"), ("retinanet_", "fpn_"))
]
LEVELS = ["res2", "res3", "res4", "res5"]
WRAPPERS = {
    "TIMM": (TimmBackbone, "test_resnet", {}),
    "TORCHVISION": (TorchvisionBackbone, "resnet18", {}),
    "HUGGINGFACE": (HuggingFaceBackbone, "resnet", RESNET),
}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(BACKBONE_REGISTRY, "_obj_map", dict(BACKBONE_REGISTRY._obj_map))
    register_backbones()


def config(name, *options):
    cfg = get_cfg()
    add_backbone_config(cfg)
    cfg.MODEL.BACKBONE.NAME = name
    small = ["MODEL.TIMM.NAME", "test_resnet", "MODEL.TORCHVISION.NAME", "resnet18"]
    cfg.MODEL.HUGGINGFACE.KWARGS.update(RESNET)
    common = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 24]
    cfg.merge_from_list([*small, *common, "MODEL.FPN.IN_FEATURES", LEVELS, *options])
    return cfg


def shapes(tensors):
    return {name: tensor.shape for name, tensor in tensors.items()}


def test_register_backbones__twice_and_by_their_names(registered):
    register_backbones()
    assert all(BACKBONE_REGISTRY.get(name) is getattr(registry, name) for name in NAMES)


def test_register_backbones__name_taken(monkeypatch):
    for name in NAMES:
        monkeypatch.delitem(BACKBONE_REGISTRY._obj_map, name, raising=False)
    name = NAMES[4]
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, name, lambda cfg, shape: None)
    with pytest.raises(ConfigError, match=rf"{name} cannot be .*, of .*test_registry: give"):
        register_backbones()
    assert [n for n in NAMES if n in BACKBONE_REGISTRY] == [name]


def test_add_backbone_config__keeps_what_is_there():
    cfg = config(NAMES[0])
    add_backbone_config(cfg)
    assert cfg.MODEL.TIMM.NAME == "test_resnet"


def test_add_backbone_config__keys_take_what_the_wrappers_take(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "MODEL: {TIMM: {WEIGHTS: a.pth, NORM: FrozenBN, OUT_CHANNELS: 8, KWARGS: {depths: [1, 2]}}}"
    )
    cfg = config(NAMES[0])
    cfg.merge_from_file(str(file))
    cfg.merge_from_list(["MODEL.TIMM.NORM", None, "MODEL.TIMM.WEIGHTS", ""])
    options = cfg.MODEL.TIMM
    assert (options.NORM, options.OUT_CHANNELS, options.WEIGHTS) == (None, 8, "")
    assert options.KWARGS == {"depths": [1, 2]}


def test_add_backbone_config__of_a_lazy_config():
    with pytest.raises(TypeError, match=r"config of detectron2.s get_cfg\(\), got dict: a lazy"):
        add_backbone_config({"MODEL": {}})


@pytest.mark.parametrize("function", [add_backbone_config, set_pixel_statistics])
def test_frozen_config__is_refused(function):
    cfg = config(NAMES[0])
    cfg.freeze()
    with pytest.raises(ConfigError, match=rf"frozen: call {function.__name__}\(cfg\) before cfg"):
        function(cfg)


@pytest.mark.parametrize("library", WRAPPERS)
def test_builder__alone_is_the_wrapper(registered, tmp_path, library):
    wrapper, network, keywords = WRAPPERS[library]
    name = f"build_{library.lower()}_backbone"
    keywords = {**keywords, "in_channels": 5, "frozen_norm": True, "freeze_at": 2}
    twin = wrapper(network, out_features=["res3", "res5"], **keywords)
    torch.save(twin.state_dict(), tmp_path / "twin.pth")
    options = [
        *(f"MODEL.{library}.OUT_FEATURES", ["res3", "res5"]),
        *(f"MODEL.{library}.NORM", "FrozenBN", "MODEL.BACKBONE.FREEZE_AT", 2),
        # A file stands before what would have to be fetched.
        *(f"MODEL.{library}.WEIGHTS", str(tmp_path / "twin.pth")),
        *(f"MODEL.{library}.PRETRAINED", True),
        *("MODEL.PIXEL_MEAN", [1.0] * 5, "MODEL.PIXEL_STD", [1.0] * 5),
        *("MODEL.META_ARCHITECTURE", "RetinaNet"),
    ]
    backbone = build_backbone(config(name, *options))
    assert type(backbone) is wrapper
    assert backbone.output_shape() == twin.output_shape()
    assert backbone.frozen_modules == twin.frozen_modules != ()
    assert any(isinstance(module, FrozenBatchNorm2d) for module in backbone.modules())
    assert shapes(backbone.state_dict()) == shapes(twin.state_dict())
    images = torch.randn(2, 5, 67, 45)
    maps, expected = backbone.eval()(images), twin.eval()(images)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)


def test_builder__keywords_of_the_library(registered):
    cfg = config(NAMES[0], "MODEL.TIMM.NAME", "test_vit", "MODEL.TIMM.OUT_CHANNELS", 24)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.TIMM.KWARGS.depth = 1
    cfg.MODEL.TIMM.OUT_FEATURES = ["res3"]
    backbone = build_backbone(cfg)
    assert len(backbone.timm_model.model.blocks) == 1
    assert backbone.output_shape() == {"res3": ShapeSpec(channels=24, stride=8)}


@pytest.mark.parametrize(
    ("library", "names", "levels"),
    [
        ("timm", LEVELS, ["p2", "p3", "p4", "p5", "p6"]),
        ("torchvision", LEVELS[:3], ["p2", "p3", "p4", "p5"]),
        ("huggingface", ["stage1", "stage2"], ["p2", "p3", "p4"]),
    ],
)
def test_builder__fpn_pools_its_own_last_level(registered, library, names, levels):
    cfg = config(f"build_{library}_fpn_backbone", "MODEL.FPN.IN_FEATURES", names)
    backbone = build_backbone(cfg).eval()
    assert list(backbone.bottom_up.output_shape()) == names
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert list(maps) == list(backbone.output_shape()) == levels
    assert all(m.shape[1] == 24 for m in maps.values())
    assert torch.equal(maps[levels[-1]], F.max_pool2d(maps[levels[-2]], 1, 2))


@pytest.mark.parametrize("library", ["timm", "torchvision", "huggingface"])
def test_builder__retinanet_computes_p6_of_the_last_map(registered, library):
    name = f"build_retinanet_{library}_fpn_backbone"
    backbone = build_backbone(config(name, "MODEL.FPN.IN_FEATURES", ["res3", "res4"])).eval()
    images = torch.randn(1, 3, 64, 96)
    maps = backbone(images)
    # Two coarser levels than the last map, whose stride is 16.
    assert {n: s.stride for n, s in backbone.output_shape().items()} == {
        **{"p3": 8, "p4": 16, "p5": 32, "p6": 64}
    }
    expected = backbone.top_block.p6(backbone.bottom_up(images)["res4"])
    torch.testing.assert_close(maps["p5"], expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (NAMES[1], ["MODEL.FPN.IN_FEATURES", []], "FPN.IN_FEATURES is empty: name the maps"),
        (
            NAMES[1],
            ["MODEL.FPN.IN_FEATURES", ["res3", "res5"]],
            r"\['res3', 'res5'\] have strides \[8, 32\], but an FPN takes",
        ),
        (NAMES[0], [], r"takes 1024 channels, and res4 of build_timm_backbone has 192: start"),
        (
            NAMES[0],
            ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.RPN.IN_FEATURES", ["p2", "p3"]],
            r"names p2, and build_timm_backbone gives res4: name build_timm_fpn_backbone, or",
        ),
        (NAMES[1], ["MODEL.TIMM.KWARGS.weights", "a"], r"TIMM\.KWARGS holds weights, for"),
    ],
)
def test_builder__refuses(registered, name, options, message):
    cfg = config(name)
    for key, value in zip(options[::2], options[1::2], strict=True):
        *parts, last = key.split(".")
        node = cfg
        for part in parts:
            node = node[part]
        node[last] = value
    with pytest.raises(ConfigError, match=message):
        build_backbone(cfg)


def test_set_pixel_statistics__of_a_folder_of_transformers(registered, tmp_path, caplog):
    theirs = built_by_transformers("resnet", RESNET)
    theirs.save_pretrained(tmp_path)
    said = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    options = ["MODEL.HUGGINGFACE.NAME", str(tmp_path), "MODEL.HUGGINGFACE.PRETRAINED", True]
    cfg = config("build_huggingface_fpn_backbone", *options, "MODEL.BACKBONE.FREEZE_AT", 2)
    cfg.MODEL.HUGGINGFACE.KWARGS.clear()
    set_pixel_statistics(cfg)
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == ([127.5] * 3, [63.75] * 3)
    with caplog.at_level(logging.WARNING):
        found = build_backbone(cfg).bottom_up.hf_model.model.state_dict()
    assert caplog.text == ""
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_builder__without_transformers(registered, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    cfg = config("build_huggingface_fpn_backbone")
    for build in (build_backbone, set_pixel_statistics):
        with pytest.raises(ImportError, match="not installed: pip install transformers"):
            build(cfg)


def test_builder__keys_were_not_added(registered):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = NAMES[3]
    with pytest.raises(ConfigError, match=r"no MODEL\.TORCHVISION: call add_backbone_config"):
        build_backbone(cfg)


@pytest.mark.parametrize(
    ("weights", "warnings"),
    [
        ("", ["FREEZE_AT=1 freezes stages with random weights"]),
        ("a_run.pth", []),
        (
            "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
            [r"R-50.pkl is the file of a bare backbone", "FREEZE_AT=1 freezes stages with random"],
        ),
    ],
)
def test_builder__warns_of_no_weights(registered, caplog, weights, warnings):
    cfg = config(NAMES[1], "MODEL.BACKBONE.FREEZE_AT", 1, "MODEL.WEIGHTS", weights)
    set_pixel_statistics(cfg)
    caplog.clear()
    build_backbone(cfg)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == len(warnings)
    assert all(warning in text for warning, text in zip(warnings, told, strict=True))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("build_timm_fpn_backbone", [127.5] * 3, [127.5] * 3),
        ("build_torchvision_backbone", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ("build_huggingface_fpn_backbone", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    ],
)
def test_set_pixel_statistics__ends_the_warning(registered, caplog, name, mean, std):
    cfg = config(name)  # BGR, divided by one
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    build_backbone(cfg)
    assert "call set_pixel_statistics(cfg)" in caplog.text
    caplog.clear()
    set_pixel_statistics(cfg)
    assert "PIXEL_MEAN" not in caplog.text
    assert list(cfg.MODEL.PIXEL_MEAN) == pytest.approx(mean)
    assert list(cfg.MODEL.PIXEL_STD) == pytest.approx(std)
    assert cfg.INPUT.FORMAT == "RGB"
    caplog.clear()
    build_backbone(cfg)
    assert "PIXEL_MEAN" not in caplog.text
    cfg.INPUT.FORMAT = "BGR"
    build_backbone(cfg)
    assert "call set_pixel_statistics(cfg)" in caplog.text


def test_set_pixel_statistics__of_an_fpn_asks_for_its_maps(registered):
    options = [v for key in WRAPPERS for v in (f"MODEL.{key}.OUT_FEATURES", ["res9"])]
    for name in (name for name in NAMES if "_fpn_" in name):
        cfg = config(name, *options)
        set_pixel_statistics(cfg)
        assert cfg.INPUT.FORMAT == "RGB"
        cfg.MODEL.FPN.IN_FEATURES = []
        with pytest.raises(ConfigError, match="IN_FEATURES is empty"):
            set_pixel_statistics(cfg)


def test_set_pixel_statistics__of_another_builder():
    with pytest.raises(
        ConfigError, match=r"'build_tim_fpn_backbone' are not .* 'build_timm_fpn_ba"
    ):
        set_pixel_statistics(config("build_tim_fpn_backbone"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    annotations, images = write_shapes_dataset(folder, 6, image_size=(64, 64), max_objects=3)
    register_coco_instances("yaml_shapes", {}, str(annotations), str(images))
    return "yaml_shapes"


class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR, use_fast_impl=False)


SMALL = """
MODEL:
  DEVICE: cpu
  FPN: {{OUT_CHANNELS: 16}}
  RPN: {{BATCH_SIZE_PER_IMAGE: 16, POST_NMS_TOPK_TRAIN: 20, POST_NMS_TOPK_TEST: 10}}
  ROI_HEADS: {{BATCH_SIZE_PER_IMAGE: 8, NUM_CLASSES: 3}}
  ROI_BOX_HEAD: {{FC_DIM: 16}}
  ROI_MASK_HEAD: {{CONV_DIM: 8, NUM_CONV: 1}}
  RETINANET: {{NUM_CLASSES: 3, NUM_CONVS: 1}}
  {model}
INPUT: {{MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}}
DATASETS: {{TRAIN: [yaml_shapes], TEST: [yaml_shapes]}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER: {{IMS_PER_BATCH: 2, BASE_LR: 0.001, MAX_ITER: 3}}
OUTPUT_DIR: {output}
"""


@pytest.mark.parametrize(
    ("base", "model", "tasks"),
    [
        (
            "Base-RCNN-FPN.yaml",
            "MASK_ON: True\n  BACKBONE: {NAME: build_timm_fpn_backbone, FREEZE_AT: 0}\n"
            "  TIMM: {NAME: test_convnext, KWARGS: {drop_path_rate: 0.1}}",
            {"bbox", "segm"},
        ),
        (
            "Base-RetinaNet.yaml",
            "BACKBONE: {NAME: build_retinanet_torchvision_fpn_backbone, FREEZE_AT: 0}\n"
            "  TORCHVISION: {NAME: resnet18}",
            {"bbox"},
        ),
        (
            "Base-RetinaNet.yaml",
            "BACKBONE: {NAME: build_retinanet_huggingface_fpn_backbone, FREEZE_AT: 1}\n"
            f"  HUGGINGFACE: {{NAME: swin, KWARGS: {SWIN}}}",
            {"bbox"},
        ),
    ],
)
def test_default_trainer__trains_and_evaluates(registered, data, tmp_path, base, model, tasks):
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {YAML / base}\n" + SMALL.format(model=model, output=tmp_path))
    cfg = get_cfg()
    add_backbone_config(cfg)
    cfg.merge_from_file(str(file))
    set_pixel_statistics(cfg)
    with restored_loggers():
        trainer = Trainer(cfg)
        first = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.resume_or_load(resume=False)
        trainer.train()
    assert set(trainer._last_eval_results) == tasks
    moved = [n for n, p in trainer.model.named_parameters() if not torch.equal(p, first[n])]
    assert any(name.startswith("backbone.bottom_up.") for name in moved)
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert any("total_loss" in row for row in rows)
    build_model(cfg).load_state_dict(torch.load(tmp_path / "model_final.pth")["model"])
